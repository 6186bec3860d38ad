"""The best of several settings per corruption, chosen by the ground truth: an upper bound, (IDEAL).

Papers that report the best setting of a grid report this; an unlearner, who does not know the truth, cannot
choose so. Only methods that were run with several settings have a row.
"""

from typing import Any

import pandas as pd

from unlearn.reporting.tables.facts import order_corruptions, regularity_levels
from unlearn.reporting.tables.frames import existing_columns

OPTION = "config/method."
GROUP = ("dataset", "model", "corrupted", "method")
MARK = " (IDEAL)"
TITLE = (
    "the best of several settings per corruption, chosen by the ground truth (IDEAL): healed x utility; "
    "one: the best single setting for all corruptions"
)


def tabulate_best_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the oracle's choice among the settings of each method; empty if no method has several.

    Args:
        frame: Rows of corrupted data, prepared.

    Returns:
        Data and network; ``method`` with the mark; ``settings`` compared; the highest mean ``healed_utility``
        of a setting per corruption; their mean ``ideal``; ``one``, the mean of the best single setting; and
        ``options``, the settings chosen.
    """
    rows = []
    for key, group in frame.groupby(existing_columns(frame, GROUP), dropna=False):
        varied = find_varied_options(group)
        if varied:
            rows.append(
                dict(zip(existing_columns(frame, GROUP), key, strict=True))
                | _choose_by_truth(group, varied)
            )
    table = pd.DataFrame(rows)
    return table if table.empty else table.assign(method=table["method"].astype(str) + MARK)


def find_varied_options(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a method's options that have several values in the same cell."""
    options = [str(column) for column in frame if str(column).startswith(OPTION)]
    cell = existing_columns(frame, ("corruption", "discovery", "seed"))
    text = frame[options].astype(str)
    per_cell = text.groupby([frame[column] for column in cell], dropna=False)[options].nunique()
    return [
        column
        for column in options
        if not column.endswith(".seed") and (per_cell[column] > 1).any()
    ]


def _choose_by_truth(frame: pd.DataFrame, varied: list[str]) -> dict[str, Any]:
    """Return the oracle's choice among the settings of one method."""
    names = [_describe_setting(values, varied) for values in frame[varied].astype(str).to_numpy()]
    values = frame.assign(setting=names, product=frame["healed_utility"].astype(float).fillna(0.0))
    means = values.groupby(["setting", "corruption"])["product"].mean().unstack()
    means = means[order_corruptions(means.columns, regularity_levels(frame))]
    best = {str(kind): (values.max(), values.idxmax()) for kind, values in means.items()}
    return {
        "settings": len(means),
        **{kind: float(value) for kind, (value, _) in best.items()},
        "ideal": float(means.max().mean()),
        "one": float(means.dropna().mean(axis=1).max()),
        "options": "; ".join(f"{kind}: {setting}" for kind, (_, setting) in best.items()),
    }


def _describe_setting(values: Any, varied: list[str]) -> str:
    pairs = zip(varied, values, strict=True)
    return " ".join(f"{column.removeprefix(OPTION)}={value}" for column, value in pairs)
