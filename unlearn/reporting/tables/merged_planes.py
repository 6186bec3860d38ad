"""The user's measured cells joined with those of the package, for advice.

A cell is a setting (data set, network, amount of corruption), a kind of corruption and a discovery
rate. Cells of both tables are averaged, weighted by their seeds; ``own`` counts the user's.
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from unlearn.core.words import count_noun
from unlearn.reporting.tables.facts import BASELINE, REFERENCE, read_fact
from unlearn.reporting.tables.frames import existing_columns

SETTING = ("dataset", "model", "corrupted")
CELL = ("corruption", "discovery")
MEASURES = ("healed", "utility", "healed_utility")
MIN_METHODS = 2  # methods of a case, without baseline and reference, that can be compared


def merge_planes(own: pd.DataFrame, shipped: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of both tables, each once per method.

    Args:
        own: The user's cells, as from ``aggregate_plane``; may be empty.
        shipped: The package's.

    Returns:
        The columns of ``shipped``, with ``n`` seeds of both, and ``own``, those of the user.
    """
    parts = [
        table.assign(own=table["n"] * mine)
        for table, mine in ((own, 1), (shipped, 0))
        if len(table)
    ]
    keys = [*SETTING, *CELL, "method"]
    both = pd.concat([part.reindex(columns=[*shipped, "own"]) for part in parts], ignore_index=True)
    twice = both.duplicated(keys, keep=False)
    if not twice.any():
        return both
    joined = [_join_rows(group) for _, group in both[twice].groupby(keys, dropna=False)]
    return pd.concat([both[~twice], pd.DataFrame(joined)], ignore_index=True)


def _join_rows(group: pd.DataFrame) -> pd.Series:
    """Return the mean of a cell's two rows, weighted by seeds; the user's row is the first."""
    weight = group["n"] / group["n"].sum()
    row = group.iloc[0].copy()
    row["n"], row["own"] = int(group["n"].sum()), int(group["own"].sum())
    for name in MEASURES:
        row[name] = float((group[name] * weight).sum())
        row[f"{name}_sem"] = _join_errors(group[f"{name}_sem"], group["n"])
    known = group["time"].notna()
    row["time"] = (
        float((group["time"] * group["n"])[known].sum() / group["n"][known].sum())
        if known.any()
        else math.nan
    )
    row["lowest"], row["collapsed"] = group["lowest"].min(), int(group["collapsed"].sum())
    return row


def _join_errors(errors: pd.Series, seeds: pd.Series) -> float:
    """Return the standard error of a weighted mean; a single seed has the deviation of the other."""
    spread = (errors * seeds**0.5).dropna()
    if spread.empty:
        return math.nan
    known = errors.fillna(spread.mean() / seeds**0.5)
    return float(((known * seeds / seeds.sum()) ** 2).sum() ** 0.5)


def choose_setting(
    table: pd.DataFrame, names: Mapping[str, str], corruption: str | None
) -> pd.DataFrame:
    """Return the cells of one setting in which several methods can be compared.

    Preferred are the given data set and network, then the data set, then the setting with most
    cells. A setting without this kind of corruption, or with too few methods, is passed over.

    Args:
        table: Cells of several settings.
        names: The ``dataset`` and ``model`` of the case.
        corruption: Kind of the case; None if unknown.
    """
    columns = existing_columns(table, SETTING)
    settings = [part for _, part in table.groupby(columns, dropna=False)]
    fitting = [part for part in settings if _can_compare(part, corruption)] or settings
    return max(fitting, key=lambda part: (_closeness(part, names), len(part)))


def _can_compare(cells: pd.DataFrame, corruption: str | None) -> bool:
    """Return whether enough methods were measured on a kind of corruption."""
    if corruption is not None:
        cells = cells[cells["corruption"] == corruption]
    compared = ~read_fact(cells, "role").isin((BASELINE, REFERENCE))
    return cells.loc[compared, "method"].nunique() >= MIN_METHODS


def _closeness(cells: pd.DataFrame, names: Mapping[str, str]) -> int:
    """Return how many of data set and network agree; a network counts on its data set alone."""
    first = cells.iloc[0]
    alike: Sequence[bool] = [str(first.get(key)) == names.get(key) for key in ("dataset", "model")]
    return 0 if not alike[0] else 1 + alike[1]


def describe_sources(cells: pd.DataFrame, table: pd.DataFrame, place: str, revision: str) -> str:
    """Return which rows the cells of a case come from, and which rows of the user are not among them.

    Args:
        cells: Cells of the case.
        table: All cells.
        place: Folder of the user's rows.
        revision: Revision of the package's rows.
    """
    own, total = int(cells["own"].sum()), int(cells["n"].sum())
    told = [f"{count_noun(own, 'row')} of {place}"] if own else []
    if total > own:
        told.append(
            f"{count_noun(total - own, 'row')} of the package's own table (revision {revision})"
        )
    text = " and ".join(told)
    elsewhere = int(table["own"].sum()) - own
    if not elsewhere:
        return text
    verb = "is" if elsewhere == 1 else "are"
    return f"{text}; {count_noun(elsewhere, 'row')} of {place} {verb} of other cells"
