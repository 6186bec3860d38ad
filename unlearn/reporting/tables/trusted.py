"""Two blocks in tables: methods without, and with, a trusted set. Ranks hold within a block."""

from collections.abc import Iterator

import pandas as pd

BASELINE = "ft_trusted"
"""The method that every block with a trusted set should show."""

RULES = (
    "Methods with a trusted set were given images known to be right and are ranked among themselves.",
    "A method without one does not see, tune, stop or select by trusted data.",
    f"The gain of a method is its distance to {BASELINE} with the same images.",
    "Thresholds use a part of the trusted set; no method looks at test data or attack success.",
    "Methods that do not use the forget set are run at one discovery rate and copied to the others.",
)
"""Printed under every table that has a block with a trusted set."""


def is_trusted(frame: pd.DataFrame) -> pd.Series:
    """Return which rows are of methods that had a trusted set, bool (rows,)."""
    if "access" not in frame:
        return pd.Series(False, frame.index)
    return frame["access"].map(lambda sets: "trusted" in str(sets).split("+")).astype(bool)


def count_images(frame: pd.DataFrame) -> float:
    """Return the mean number of trusted images of rows; 0 for methods without a trusted set."""
    if not is_trusted(frame).any():
        return 0
    known = frame.get("trusted/n")
    return 0 if known is None or known.isna().all() else float(round(known.mean()))


def iterate_blocks(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows without, then those with a trusted set, if there are any."""
    known = is_trusted(frame)
    for part in (frame[~known], frame[known]):
        if len(part):
            yield part


def find_gap(frame: pd.DataFrame) -> str | None:
    """Return a line if there are rows with a trusted set, but none of the baseline; else None."""
    own = frame[is_trusted(frame)]
    if own.empty or own["method"].astype(str).str.startswith(BASELINE).any():
        return None
    return f"rows with a trusted set lack their baseline: run method={BASELINE} with the same trusted set"
