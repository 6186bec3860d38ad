"""Compares published claims with measurements: values with tolerance, bounds, orders of methods."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from unlearn.core.words import count_noun
from unlearn.reporting.tables.frames import TASK, existing_columns, fill_collapsed, standard_error

ORDER = re.compile(r"\s+(>=|>|~)\s+")
KEYS = ("method", "order", "column", "value", "tolerance", "at_least", "at_most")
KEYS += ("where", "minus", "source")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published claim about a mean over cells.

    Attributes:
        method: Label of the rows.
        column: Averaged over the cells.
        source: Source of the claim.
        value: Expected mean, within ``tolerance``.
        tolerance: Largest deviation that still agrees.
        at_least: Lower bound of the mean.
        at_most: Upper bound of the mean.
        above: Whether the bounds are strict.
        where: Value, or list of values, by column; selects the rows.
        minus: Rows whose mean is subtracted: the columns that differ, including ``method``.

    Raises:
        ValueError: If nothing is expected.
    """

    method: str
    column: str
    source: str
    value: float | None = None
    tolerance: float = 0.0
    at_least: float | None = None
    at_most: float | None = None
    above: bool = False
    where: Mapping[str, Any] = field(default_factory=dict)
    minus: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check that the claim can fail."""
        if self.value is None and self.at_least is None and self.at_most is None:
            raise ValueError(
                f"expected: {self.format_name()} needs value, at_least, at_most or order"
            )

    def format_name(self) -> str:
        """Return a short name of the measured value."""
        if self.minus is None:
            return f"{self.method}: {self.column}"
        other = self.minus.get("method", self.method)
        rest = _format_where({k: v for k, v in self.minus.items() if k != "method"})
        return f"{self.method} − {other}{f' at {rest}' if rest else ''}: {self.column}"

    def format_expected(self) -> str:
        """Return a short text of the expected value."""
        if self.value is not None:
            return f"{self.value:g} ± {self.tolerance:g}"
        sign = "> " if self.above else "≥ "
        parts = [] if self.at_least is None else [f"{sign}{self.at_least:g}"]
        parts += [] if self.at_most is None else [f"≤ {self.at_most:g}"]
        return " and ".join(parts)

    def is_met(self, mean: float) -> bool:
        """Return whether a mean agrees with the claim."""
        mean = round(mean, 9)
        low = self.at_least is None or (
            mean > self.at_least if self.above else mean >= self.at_least
        )
        high = self.at_most is None or mean <= self.at_most
        near = self.value is None or abs(mean - self.value) <= self.tolerance + 1e-9
        return low and high and near


def _format_where(where: Mapping[str, Any]) -> str:
    def format_value(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return " ".join(f"{k.rpartition('/')[2]}={format_value(v)}" for k, v in where.items())


def parse_claims(node: Mapping[str, Any]) -> list[Claim]:
    """Return the claims of one entry of ``expected``; an order of n methods gives n - 1.

    Raises:
        ValueError: If a key is unknown or absent.
    """
    unknown = sorted(set(node) - set(KEYS))
    if unknown:
        raise ValueError(f"expected: unknown {', '.join(unknown)}; allowed: {', '.join(KEYS)}")
    rest = {k: v for k, v in node.items() if k != "order"}
    absent = [k for k in ("column", "source") if not rest.get(k)]
    if absent or ("order" in node) == ("method" in node):
        raise ValueError(f"expected: method or order, column and source must be given, got {node}")
    return [Claim(**rest)] if "method" in rest else _parse_order(node["order"], rest)


def _parse_order(order: str, rest: dict[str, Any]) -> list[Claim]:
    parts = ORDER.split(order.strip())
    if len(parts) < 3:
        raise ValueError(f"expected: order must be such as 'a >= b' (>=, > or ~), got {order}")
    tolerance = float(rest.pop("tolerance", 0.0))
    claims = []
    for first, sign, second in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
        claim = Claim(method=first, minus={"method": second}, at_least=0.0 - tolerance, **rest)
        if sign == "~":
            claim = replace(claim, at_least=None, value=0.0, tolerance=tolerance)
        claims.append(replace(claim, above=sign == ">"))
    return claims


def select_rows(frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows whose columns have the given value, or one of the given values.

    A column that no row has selects nothing.
    """
    keep = pd.Series(True, frame.index)
    for column, value in where.items():
        values = list(value) if isinstance(value, list | tuple) else [value]
        keep &= frame[column].isin(values) if column in frame else False
    return frame[keep]


def _cell_values(frame: pd.DataFrame, claim: Claim, where: Mapping[str, Any]) -> pd.Series:
    """Return the column's values by cell, repeated runs averaged."""
    rows = select_rows(frame, {**claim.where, "method": claim.method, **where})
    keys = [k for k in existing_columns(frame, (*TASK, "seed")) if k not in where]
    if rows.empty or claim.column not in rows:
        return pd.Series(dtype=float)
    return (
        fill_collapsed(rows, [claim.column])
        .groupby(keys, dropna=False)[claim.column]
        .mean()
        .dropna()
    )


def measure_claim(frame: pd.DataFrame, claim: Claim) -> dict[str, Any]:
    """Return a claim with its measurement; differences use cells that both sides have.

    Args:
        frame: Rows, prepared.
        claim: To compare with.

    Returns:
        ``claim``, ``where``, ``n`` cells, ``expected``, ``measured``, ``measured_sem``, ``verdict``
        (inside, outside, missing) and ``source``.
    """
    values = _cell_values(frame, claim, {})
    if claim.minus is not None:
        values = _measure_difference(frame, claim, values)
    mean = float(values.mean()) if len(values) else float("nan")
    verdict = "missing" if np.isnan(mean) else "inside" if claim.is_met(mean) else "outside"
    row = {"claim": claim.format_name(), "where": _format_where(claim.where), "n": len(values)}
    row |= {"expected": claim.format_expected(), "measured": mean}
    return row | {
        "measured_sem": standard_error(values),
        "verdict": verdict,
        "source": claim.source,
    }


def _measure_difference(frame: pd.DataFrame, claim: Claim, values: pd.Series) -> pd.Series:
    assert claim.minus is not None
    other = _cell_values(frame, claim, claim.minus)
    if other.empty or values.empty:
        return pd.Series(dtype=float)
    shared = [str(name) for name in other.index.names]
    return (values.groupby(level=shared, dropna=False).mean() - other).dropna()


def compare_claims(frame: pd.DataFrame, claims: Sequence[Claim]) -> pd.DataFrame:
    """Return all claims with their measurements, one row each; the rows must be prepared."""
    return pd.DataFrame([measure_claim(frame, claim) for claim in claims])


def count_verdicts(table: pd.DataFrame) -> str:
    """Return how many claims are inside, outside and missing, as a line."""
    counts = table["verdict"].value_counts()
    parts = [f"{counts.get(v, 0)} {v}" for v in ("inside", "outside", "missing")]
    return f"{count_noun(len(table), 'number')}: {', '.join(parts)}"
