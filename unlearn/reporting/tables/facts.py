"""Facts of methods and corruptions that rows hold: role, use of the forget set, regularity."""

from collections.abc import Iterable, Mapping

import pandas as pd

LEVELS = ("high", "medium", "low")  # regularity
BASELINE, REFERENCE, UPPER_BOUND = "baseline", "reference", "upper bound"
OLDER: dict[str, dict[str, object]] = {
    "regularity": {"poison": "high", "interclass_confusion": "medium", "random_label": "low"},
    "role": {"original": BASELINE, "retrain": REFERENCE},
    "uses_forget_set": {"original": False, "etd": False},
}
"""Facts of rows that were recorded without these columns, by corruption or method."""


def read_fact(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a fact of each row's corruption or method, None where unknown.

    Args:
        frame: Rows, or a table with the column "corruption" or "method".
        name: "regularity", "role" or "uses_forget_set".
    """
    source = "corruption" if name == "regularity" else "method"
    known = frame[name] if name in frame else pd.Series(None, frame.index, dtype=object)
    older = frame[source].map(lambda label: OLDER[name].get(plain_name(str(label))))
    if name == "role":
        ideal = frame["method"].astype(str).str.contains("ideal", case=False)
        older = older.mask(ideal, UPPER_BOUND)
    return known.astype(object).where(known.notna(), older)


def plain_name(label: str) -> str:
    """Return the method of a label: ``rem`` of ``rem(etd)``."""
    return label.partition("(")[0].strip()


def labels_of_role(frame: pd.DataFrame, role: str) -> set[str]:
    """Return the labels of the methods with a role."""
    return {str(label) for label in frame.loc[read_fact(frame, "role") == role, "method"]}


def is_upper_bound(frame: pd.DataFrame) -> pd.Series:
    """Return which rows are of an upper bound, told all corrupted samples: not ranked; bool (rows,)."""
    return read_fact(frame, "role") == UPPER_BOUND


def regularity_levels(frame: pd.DataFrame) -> dict[str, str]:
    """Return the known regularity of each corruption of the rows, the highest first."""
    pairs = zip(frame["corruption"], read_fact(frame, "regularity"), strict=True)
    known = {str(name): str(level) for name, level in pairs if level in LEVELS}
    return dict(sorted(known.items(), key=lambda pair: (LEVELS.index(pair[1]), pair[0])))


def order_corruptions(names: Iterable[object], levels: Mapping[str, str]) -> list[str]:
    """Return the corruptions, the most regular first, those of unknown regularity last."""
    found = list(dict.fromkeys(str(name) for name in names))
    return [c for c in levels if c in found] + [c for c in found if c not in levels]
