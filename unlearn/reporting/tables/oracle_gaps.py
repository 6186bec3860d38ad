"""Localized runs compared with the oracle, the model retrained without the forget set.

The shape of the tables of arXiv 2412.02432. A gap is the oracle's value minus the method's with the
same seed, in percentage points, since forget set and original model go by the seed here.
"""

import math

import pandas as pd

from unlearn.evaluation.intervals import confidence_half_width
from unlearn.reporting.tables.facts import REFERENCE, plain_name, read_fact
from unlearn.reporting.tables.frames import existing_columns

METRICS = {
    "forget/accuracy": "forget accuracy",
    "retain/accuracy": "retain accuracy",
    "test/accuracy": "test accuracy",
    "mia": "MIA efficacy",
}
BESIDE = {"mia_correctness": "MIA (correctness)"}
"""Shown in the table but not part of the mean gap; older rows lack this column."""
WHOLE, OWN = "full", "own"
OWN_PART = ("method/salient_fraction", "method/k")
"""Options of methods that change only a part of the network without a localization."""
SHARE, LAYERS = "method/localization/share_global", "method/localization/layers"
SETTING = ("dataset", "model", "corruption", "forget")
TITLE = "oracle minus method in percentage points, paired by seed: mean ± 95 % interval over seeds"


def parse_localizations(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with columns algorithm, strategy, budget and forget.

    Args:
        frame: Rows of the store. ``strategy`` is "full" if all parameters may change, "own" or
            the method's name if it selects parameters itself; ``forget``: type of forget set.

    Raises:
        ValueError: If no run was localized.
    """
    if SHARE not in frame or frame[SHARE].notna().sum() == 0:
        raise ValueError("figure=localization needs localized runs: localization=... budget=...")
    frame = frame[frame["status"] == "ok"].copy()
    frame["role"] = read_fact(frame, "role")
    frame["algorithm"] = [plain_name(str(label)) for label in frame["method"]]
    names = frame.get("config/localization_name", pd.Series(None, index=frame.index))
    options = existing_columns(frame, [f"config/{key.replace('/', '.')}" for key in OWN_PART])
    own = pd.Series(WHOLE, frame.index).mask(frame[options].notna().any(axis=1), OWN)
    own = own.mask(frame[SHARE].notna(), frame["algorithm"])
    frame["strategy"] = names.where(names.notna() & (names != "none"), own)
    frame.loc[names == "none", "strategy"] = WHOLE
    column = "method/localization/budget"
    frame["budget"] = frame[column] if column in frame else math.nan
    frame["forget"] = [_forget_kind(row) for _, row in frame.iterrows()]
    return frame


def _forget_kind(row: pd.Series) -> str:
    names = (row.get(column) for column in ("forget_set/kind", "discovery/by"))
    return next((str(name) for name in names if not pd.isna(name)), "discovered")


def with_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """Return localized rows with ``gap/<metric>``, oracle minus method in points, and their mean.

    Rows without an oracle of the same setting and seed have no gap. ``gap`` is the mean of the
    absolute gaps of all metrics that are known.
    """
    keys = [*existing_columns(frame, SETTING), "seed"]
    metrics = existing_columns(frame, tuple(METRICS))
    beside = existing_columns(frame, tuple(BESIDE))
    values = existing_columns(frame, (*metrics, *beside, "seconds"))
    frame = frame.astype(dict.fromkeys(values, float))  # a column of only None has no mean
    oracle = frame[frame["role"] == REFERENCE].groupby(keys, dropna=False)[values].mean()
    joined = frame.join(oracle.add_suffix("/oracle"), on=keys)
    gaps = pd.DataFrame(
        {f"gap/{m}": 100 * (joined[f"{m}/oracle"] - joined[m]) for m in (*metrics, *beside)},
        index=joined.index,
    )
    sizes = gaps[[f"gap/{metric}" for metric in metrics]].abs()
    gaps["gap"] = sizes.mean(axis=1, skipna=False)
    return pd.concat([joined, gaps], axis=1)


def gap_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row of gaps per setting, algorithm, localization and budget, smallest gap first.

    Args:
        frame: Rows of the store.

    Returns:
        Columns of the setting, algorithm, localization, budget, ``n`` (seeds); per metric the mean
        gap and half of its 95 % interval, ``<metric>_ci95``; ``gap``, the mean absolute gap; seconds
        relative to the oracle's. The oracle's row comes first in its setting and holds its values
        in per cent. Empty without localized runs or without an oracle.
    """
    if SHARE not in frame or frame[SHARE].notna().sum() == 0 or "seed" not in frame:
        return pd.DataFrame()
    rows = with_gaps(parse_localizations(frame))
    titles = METRICS | BESIDE
    metrics = [m for m in titles if f"gap/{m}" in rows and rows[f"gap/{m}"].notna().any()]
    if not metrics:
        return pd.DataFrame()
    setting = existing_columns(rows, SETTING)
    keys = [*setting, "algorithm", "strategy", "budget"]
    lines = []
    for values, group in rows.groupby(keys, dropna=False):
        line = dict(zip(keys, values, strict=True))
        oracle = bool((group["role"] == REFERENCE).all())
        for metric in metrics:
            shown = 100 * group[metric] if oracle else group[f"gap/{metric}"]
            line |= _compute_mean_interval(titles[metric], shown.dropna())
        line |= {} if oracle else _compute_mean_interval("gap", group["gap"].dropna())
        line["time"] = (group["seconds"] / group["seconds/oracle"]).mean()
        lines.append(line | {"n": group["seed"].nunique(), "oracle": oracle})
    table = pd.DataFrame(lines).sort_values([*setting, "oracle", "gap"],
        ascending=[True] * len(setting) + [False, True], ignore_index=True)  # fmt: skip
    named = {"strategy": "localization"}
    order = [*keys, "n", *(f"{titles[m]}{e}" for m in metrics for e in ("", "_ci95"))]
    table["algorithm"] = table["algorithm"].where(~table["oracle"], "oracle: its values")
    table["strategy"] = table["strategy"].where(~table["oracle"], "-")
    table.loc[table["strategy"] == table["algorithm"], "strategy"] = OWN
    table = table[[*order, "gap", "gap_ci95", "time"]].rename(columns=named)
    table.attrs["n"] = "seeds"
    return table


def _compute_mean_interval(name: str, values: pd.Series) -> dict[str, float]:
    return {name: values.mean(), f"{name}_ci95": confidence_half_width(list(values))}
