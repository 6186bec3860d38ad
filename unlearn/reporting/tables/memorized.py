"""Which cells have anything to unlearn: how much of the corruption the original memorized.

A cell in which the original gives corrupted samples their wrong label hardly more often than a network
that never saw them measures no unlearning. It is marked, and left out of means.
"""

import pandas as pd

from unlearn.core.recovery_columns import BASELINE, CEILING, MEMORIZED
from unlearn.core.words import count_noun
from unlearn.reporting.tables.frames import TASK, existing_columns, standard_error

LEAST = 0.3
"""Least ``memorized`` of a cell that counts."""

NOTHING = "nothing to unlearn"
TITLE = (
    "what there is to unlearn: given labels of corrupted samples under the original, minus under a "
    "network without them"
)
FACTS = (MEMORIZED, CEILING, BASELINE)


def has_nothing(frame: pd.DataFrame) -> pd.Series:
    """Return which rows are of a cell with nothing to unlearn; where it was not measured, False."""
    if MEMORIZED not in frame:
        return pd.Series(False, frame.index)
    return frame[MEMORIZED].astype(float) < LEAST


def describe_left_out(frame: pd.DataFrame) -> str | None:
    """Return a sentence about the cells that means leave out; None if there are none.

    Args:
        frame: Rows, prepared.
    """
    none = has_nothing(frame)
    if not none.any():
        return None
    cell = existing_columns(frame, (*TASK, "pretraining", "seed"))
    count = len(frame.loc[none, cell].drop_duplicates())
    names = ", ".join(sorted(frame.loc[none, "corruption"].astype(str).unique()))
    return (
        f"{count_noun(count, 'cell')} of {names} left out of means: {NOTHING}, the original memorized "
        f"less than {LEAST:g} of the corruption"
    )


def tabulate_tasks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what there is to unlearn per data set, network, corruption and pre-training.

    Args:
        frame: Rows, prepared.

    Returns:
        The setting; ``n`` originals; ``memorized``, ``ceiling`` and ``healed_original``, means over
        originals with standard errors; ``task``: yes, or "nothing to unlearn". Empty if nothing was
        measured.
    """
    if MEMORIZED not in frame or frame[MEMORIZED].isna().all():
        return pd.DataFrame()
    measured = frame.dropna(subset=[MEMORIZED])
    setting = existing_columns(
        measured, ("dataset", "model", "corrupted", "corruption", "pretraining")
    )
    rows = []
    for key, group in measured.groupby(setting, dropna=False):
        originals = group.groupby("seed")[existing_columns(group, FACTS)].mean()
        row = dict(zip(setting, key, strict=True)) | {"n": len(originals)}
        for column in originals:
            row |= {column: originals[column].mean()}
            row |= {f"{column}_sem": standard_error(originals[column])}
        row["task"] = NOTHING if originals[MEMORIZED].mean() < LEAST else "yes"
        rows.append(row)
    return pd.DataFrame(rows)
