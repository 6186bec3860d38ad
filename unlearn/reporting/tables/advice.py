"""Advice from measured rows: expected results of each method in the most similar measured case.

Rows come from the store, joined with the package's measurements on the embedded digits
(``plane_digits.csv``: written as ``plane.csv`` by ``python evaluate.py advise=true`` after
``sweeps/plane_digits.sh``). Values are means over seeds of arXiv 2505.17730's measures.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from unlearn.core.words import count_noun
from unlearn.reporting.tables.facts import (
    BASELINE,
    REFERENCE,
    is_upper_bound,
    plain_name,
    read_fact,
    regularity_levels,
)
from unlearn.reporting.tables.frames import (
    existing_columns,
    fill_collapsed,
    on_plane,
    standard_error,
)
from unlearn.reporting.tables.merged_planes import CELL, MEASURES, SETTING
from unlearn.reporting.tables.trusted import is_trusted

SHIPPED = Path(__file__).with_name("plane_digits.csv")
MARGIN = 0.05  # smaller differences are negligible
ADVICE = ("use", "possible", "avoid")


@dataclass(frozen=True)
class Case:
    """What a user knows about the bad data.

    Attributes:
        corruption: Kind of corruption; None if unknown: average over all measured kinds.
        discovery: Discovery rate in (0, 1]; None if unknown: average over all measured rates.
    """

    corruption: str | None
    discovery: float | None


def aggregate_plane(frame: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds per setting, cell and method.

    Args:
        frame: Rows, prepared.

    Returns:
        The setting, ``corruption``, ``discovery``, ``method``, ``n`` seeds, the measures with their
        standard errors (``_sem``), ``lowest`` product of a run, ``time`` relative to retraining,
        ``collapsed``, ``revision``.
    """
    frame = fill_collapsed(on_plane(frame), MEASURES)
    ranked = ~is_upper_bound(frame) & ~is_trusted(frame)  # no advice to use what one may not have
    frame = frame[ranked & frame["healed_utility"].notna()]
    task = [*existing_columns(frame, SETTING), *CELL]
    seconds = (
        frame[read_fact(frame, "role") == REFERENCE].groupby(task, dropna=False)["seconds"].mean()
    )
    rows = []
    for key, group in frame.groupby([*task, "method"], dropna=False):
        row: dict[str, Any] = dict(zip([*task, "method"], key, strict=True)) | {"n": len(group)}
        for name in MEASURES:
            row |= {name: group[name].mean(), f"{name}_sem": standard_error(group[name])}
        row["lowest"] = group["healed_utility"].min()
        retraining = seconds.get(key[:-1], math.nan)
        row["time"] = group["seconds"].mean() / retraining
        row["collapsed"] = int((group["status"] == "collapsed").sum())
        row["revision"] = group["revision"].mode().max() if "revision" in group else "unknown"
        rows.append(row)
    return pd.DataFrame(rows)


def load_shipped_plane() -> pd.DataFrame:
    """Return the table measured on the embedded digits."""
    return pd.read_csv(SHIPPED)


def select_nearest(table: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Return the cells of a measured table that are nearest to a case.

    Raises:
        ValueError: If its kind of corruption was not measured.
    """
    if case.corruption is not None:
        known = sorted(table["corruption"].unique())
        if case.corruption not in known:
            raise ValueError(
                f"corruption must be one that was measured ({', '.join(known)}), or none if it is "
                f"unknown; got {case.corruption}"
            )
        table = table[table["corruption"] == case.corruption]
    if case.discovery is not None:
        gaps = {
            abs(rate - case.discovery): rate for rate in sorted(table["discovery"].unique())[::-1]
        }
        table = table[table["discovery"] == gaps[min(gaps)]]
    return table


def for_trained(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of methods that work on a model with standard pre-training.

    Those with a label (``rem(etd)``) need another pre-training, and so does a method of its name.
    """
    plain = table["method"].map(plain_name)
    labels = {m.removeprefix(plain_name(m)).strip("()") for m in table["method"]}
    return table[(plain == table["method"]) & ~plain.isin(labels)]


def make_advice(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the expected results and a recommendation for each method over some cells.

    Args:
        cells: Cells of one table, as from ``select_nearest``.

    Returns:
        ``method``, ``n`` cells, ``rows`` (``66 + 2 own``), the means of the measures over the cells
        with the error over seeds of the product, the ``lowest`` product of a run and its cell,
        ``time``, ``advice`` and ``why``; the best first.
    """
    rows = [_expected_result(str(name), group) for name, group in cells.groupby("method")]
    rows.sort(key=lambda row: -row["healed_utility"])
    idle = next((row for row in rows if row["role"] == BASELINE), None)
    best = next((row for row in rows if row["role"] != BASELINE), rows[0])
    out = pd.DataFrame([row | _rate_method(row, idle, best) for row in rows])
    place = out["advice"].map(ADVICE.index)
    return (
        out.iloc[place.argsort(kind="stable")]
        .drop(columns=["broken", "role"])
        .reset_index(drop=True)
    )


def _expected_result(method: str, cells: pd.DataFrame) -> dict[str, Any]:
    lowest = cells.iloc[int(cells["lowest"].to_numpy().argmin())]
    errors = cells["healed_utility_sem"]
    role = read_fact(cells, "role").iloc[0]
    own = int(cells["own"].sum()) if "own" in cells else 0
    others = int(cells["n"].sum()) - own
    told = " + ".join([*([f"{others}"] if others else []), *([f"{own} own"] if own else [])])
    row: dict[str, Any] = {"method": method, "role": role, "n": len(cells), "rows": told}
    row |= {name: cells[name].mean() for name in MEASURES}
    row["healed_utility_sem"] = math.sqrt(errors.pow(2).sum(skipna=False)) / len(cells)
    row["lowest"] = lowest["lowest"]
    row["lowest_at"] = f"{lowest['corruption'].replace('_', ' ')} {lowest['discovery']:g}"
    row["time"] = cells["time"].mean()
    return row | {"broken": (int(cells["collapsed"].sum()), int(cells["n"].sum()))}


def _rate_method(
    row: dict[str, Any], idle: dict[str, Any] | None, best: dict[str, Any]
) -> dict[str, str]:
    """Return ``advice`` and ``why`` for a method's expected results."""
    broken, runs = row["broken"]
    if row["role"] == BASELINE:
        return {
            "advice": "avoid",
            "why": f"baseline: {row['healed']:.2f} correct without unlearning",
        }
    if broken:
        return {"advice": "avoid", "why": f"collapsed in {broken} of {count_noun(runs, 'run')}"}
    if idle is not None and row["healed"] < idle["healed"] + MARGIN:
        why = f"healed {row['healed']:.2f}, without unlearning {idle['healed']:.2f}"
        return {"advice": "avoid", "why": why}
    if idle is not None and row["utility"] < idle["utility"] - 2 * MARGIN:
        why = f"loses {idle['utility'] - row['utility']:.2f} of utility"
        return {"advice": "avoid", "why": why}
    gap = best["healed_utility"] - row["healed_utility"]
    error = math.hypot(best["healed_utility_sem"], row["healed_utility_sem"])
    near = gap <= 2 * error and gap <= 2 * MARGIN  # errors from few seeds are large
    if gap <= MARGIN or near:
        why = "best" if gap <= 0 else f"{gap:.2f} ± {error:.2f} behind {best['method']}"
        return {"advice": "use", "why": why + _advice_hint(row)}
    why = f"{gap:.2f} ± {error:.2f} behind {best['method']}"
    if row["healed"] < best["healed"] / 2:
        return {
            "advice": "avoid",
            "why": f"healed {row['healed']:.2f}, {best['method']} {best['healed']:.2f}",
        }
    return {"advice": "possible", "why": why + _advice_hint(row)}


def _advice_hint(row: dict[str, Any]) -> str:
    """Return the further option that a label needs besides the method."""
    kind = str(row["method"]).removeprefix(plain_name(str(row["method"]))).strip("()")
    return f"; needs pretraining={kind}" if kind else ""


def shorten_advice(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of the advice that fit a terminal of 80 columns; files hold the others."""
    return table[["method", "advice", "healed_utility", "healed_utility_sem", "rows", "why"]]


def describe_case(case: Case, cells: pd.DataFrame, source: str) -> str:
    """Return one line with the case of the advice and the source of its numbers."""
    kind = case.corruption
    level = regularity_levels(cells).get(kind or "", "unknown")
    what = f"{kind} (regularity {level})" if kind else "any corruption"
    rates = sorted(cells["discovery"].unique())
    asked = "" if case.discovery in (None, *rates) else f", the nearest to {case.discovery:g}"
    rate = (
        f"discovery {rates[0]:g}" if len(rates) == 1 else f"discovery {rates[0]:g} to {rates[-1]:g}"
    )
    data = ", ".join(str(cells[c].iloc[0]) for c in existing_columns(cells, SETTING[:2]))
    seeds = int(cells["n"].max())
    return f"{what}, {rate}{asked}; measured on {data}, {seeds} seed{'s' * (seeds > 1)}: {source}"
