"""Tables and figures of refined unlearning: RUM's variants, sequences of requests, proxies.

Sources: arXiv 2406.01257, 2410.16516. Means over seeds with 95 % Student-t intervals.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from unlearn.evaluation.intervals import confidence_half_width
from unlearn.reporting.tables.facts import BASELINE, REFERENCE, read_fact

VARIANTS = ("vanilla", "shuffle", "refined", "meta", "auto")
CHOSEN = ("meta", "auto")  # own method for each part: last rows of the table
METRICS = ("tow", "tow_mia", "mia_gap", "forget/accuracy", "retain/accuracy", "test/accuracy")
METRICS += (
    "forget_set/entanglement",
    "mia",
    "forget/disagreement",
    "tow_so_far",
    "js/forget",
    "js/test",
    "kl/forget",
)
METRICS += ("klom/forget", "klom/retain", "klom/test", "relearn_steps", "relearn_steps_retrained")
METRICS += ("relearn_gap", "lira/auc", "lira/member", "lira/member_retrained")
METRICS += ("mia_correctness", "mia_correctness_gap", "tow_mia_so_far")
METRICS += ("ulira/auc", "ulira/tpr", "relative_seconds")
PRINTED = (
    *METRICS[:7],
    "tow_so_far",
    "klom/forget",
    "lira/auc",
    "ulira/auc",
    "relearn_gap",
    "relative_seconds",
)
PAPER = ("tow", "mia_gap", "tow_mia")
LOST = {"tow": 0.0, "tow_mia": 0.0, "mia_gap": 1.0}  # of a collapsed model
SETTING = ("dataset", "model", "score", "forget_set/kind", "forget_set/group", "forget_set/size")
HALF = "_ci95"


def is_uncorrupted(frame: pd.DataFrame) -> pd.Series:
    """Return which rows have uncorrupted data, bool (rows,)."""
    return frame["corruption"] == "none"


def tabulate_refined(
    frame: pd.DataFrame, by: Sequence[str] = ("method",), metrics: Sequence[str] = METRICS
) -> pd.DataFrame:
    """Return a row per setting, method and variant of RUM, as in the paper's table.

    Args:
        frame: Rows of the store, prepared, without corruption.
        by: Columns to group by; "method" is followed by the variant.
        metrics: Columns to average.

    Returns:
        Varying columns of ``SETTING`` and ``by``, request, method and variant; ``n`` seeds;
        per known metric its mean and half of the 95 % interval over seeds, ``<metric>_ci95``; the
        number of runs that collapsed, whose ToW counts as 0 and whose MIA gap as 1.
    """
    if frame.empty:
        return pd.DataFrame()
    frame = _split_variants(frame)
    keys = [c for c in (*SETTING, *by) if c in frame and (c in by or _has_several(frame, c))]
    if frame["request"].nunique() > 1:
        keys.append("request")
    if "method" in by:
        keys = [k for k in keys if k != "method"] + ["method", "variant"]
    known = [m for m in metrics if m in frame and frame[m].notna().any()]
    rows = []
    for key, group in frame.groupby(keys, dropna=False, sort=False):
        seeds = group.groupby("seed")[known].mean()
        row: dict[str, Any] = dict(zip(keys, key, strict=True)) | {"n": len(seeds)}
        row["role"] = read_fact(group, "role").iloc[0]
        for metric in known:
            values = seeds[metric].dropna()
            row |= {metric: values.mean(), metric + HALF: confidence_half_width(list(values))}
        rows.append(row | {"collapsed": int((group["status"] == "collapsed").sum())})
    if "method" in by:
        rows.sort(key=lambda row: _sort_key(row, keys))
    out = pd.DataFrame(rows)
    out.attrs["n"] = "seeds"
    plain = "variant" in out and (out["variant"] == "-").all()
    return out.drop(columns="variant") if plain else out


def _has_several(frame: pd.DataFrame, column: str) -> bool:
    return frame[column].nunique(dropna=False) > 1


def _split_variants(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with RUM's variant, requests from 1, and collapsed models counted."""
    mode = frame["method/mode"] if "method/mode" in frame else pd.Series(None, frame.index)
    names, kinds = [], []
    for name, kind in zip(frame["method"].astype(str), mode, strict=True):
        known = isinstance(kind, str)
        inside = name.removeprefix("rum(").partition(" ")[0]
        names.append(("rum" if kind in CHOSEN else inside) if known else name)
        kinds.append(kind if known else "-")
    out = frame.assign(method=names, variant=kinds, request=frame["step"] + 1)
    lost = out["status"] == "collapsed"
    for metric, value in LOST.items():
        if metric in out:
            out.loc[lost, metric] = out.loc[lost, metric].astype(float).fillna(value)
    numbers = [m for m in METRICS if m in out]
    return out.astype(dict.fromkeys(numbers, float))


def _sort_key(row: Mapping[str, Any], keys: Sequence[str]) -> tuple[Any, ...]:
    """Return the sort key of a row: settings, then references, methods, best per part."""
    method, variant = row["method"], row["variant"]
    first = {REFERENCE: 0, BASELINE: 1}
    order = first.get(row["role"], 3 if variant in CHOSEN else 2)
    kind = ("-", *VARIANTS).index(variant) if variant in ("-", *VARIANTS) else 0
    own = [row[k] for k in keys if k not in ("method", "variant", "request")]
    values = [(0, v, "") if isinstance(v, int | float) else (1, 0, str(v)) for v in own]
    return (*values, order, str(method), kind, row.get("request", 0))


def shorten_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of ``tabulate_refined`` with fewer columns, for a terminal.

    The headline keeps its intervals.
    """
    gone = {m for m in METRICS if m not in PRINTED} | {m + HALF for m in METRICS if m not in PAPER}
    return table[[c for c in table if c not in gone]]


def tabulate_rum(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table of RUM as in its paper: ToW and MIA gap per method and variant.

    Only settings in which RUM was run; empty if there are none.
    """
    if "method/mode" not in frame or "tow" not in frame:
        return pd.DataFrame()
    own = [c for c in (*SETTING, "step") if c in frame]
    setting = frame[own].apply(lambda row: tuple(str(v) for v in row), axis=1)
    return tabulate_refined(
        frame[setting.isin(set(setting[frame["method/mode"].notna()]))], metrics=PAPER
    )
