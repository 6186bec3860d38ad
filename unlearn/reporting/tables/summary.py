"""Summary tables as data frames: means and standard errors over cells (arXiv 2505.17730)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unlearn.core.recovery_columns import RECOVERED
from unlearn.reporting.tables.comparisons import (
    mean_ranks,
    missing_cells,
    relative_time,
    worst_cells,
)
from unlearn.reporting.tables.facts import REFERENCE, UPPER_BOUND, labels_of_role, read_fact
from unlearn.reporting.tables.frames import fill_collapsed, is_failed, standard_error
from unlearn.reporting.tables.trusted import count_images, is_trusted

HEADLINE = ("healed", "utility", "healed_utility", "seconds")
SEED_ERROR = "healed_utility_seed_sem"
COUNTS = ("collapsed", "failed", "missing")
TITLES = {
    "healed_utility": "healed x utility",
    "n": "cells",
    "healed_original": "healed by nothing",
    "task": "a task",
    "trusted": "trusted images",
    "worst_cell": "worst cell",
    "time": "time / retrain",
    "high": "high regularity",
    "medium": "medium regularity",
    "low": "low regularity",
    "rate_low": "rate ≤ 0.3",
    "rate_mid": "0.4 to 0.7",
    "rate_high": "≥ 0.8",
    "seed_error": "± seeds",
    "p_holm": "p (Holm)",
    "tow": "ToW",
    "forget_set/entanglement": "ES",
    "tow_mia": "ToW-MIA",
    "klom/forget": "KLOM",
    "lira/auc": "LiRA",
    "ulira/auc": "U-LiRA",
    "relearn_gap": "relearn gap",
    "tow_so_far": "ToW so far",
    "tow_mia_so_far": "ToW-MIA so far",
    "mia_gap": "MIA gap",
    "mia": "MIA",
    "mia_correctness": "MIA (correctness)",
    "mia_correctness_gap": "MIA gap (correctness)",
    "forget/accuracy": "forget accuracy",
    "retain/accuracy": "retain accuracy",
    "test/accuracy": "test accuracy",
    "forget/disagreement": "disagreement",
    "relative_seconds": "time / retrain",
    "forget_set/kind": "forget set",
    "forget_set/group": "group",
    "forget_set/size": "size",
    "gap": "mean gap",
}
ERRORS = ("_sem", "_ci95")  # suffixes of error columns
LOWER = ("rank", "mia_gap")  # ranked columns where lower is better


def summarize_metrics(
    frame: pd.DataFrame,
    by: Sequence[str] = ("method",),
    metrics: Sequence[str] = HEADLINE,
) -> pd.DataFrame:
    """Return mean and standard error of each metric per group, best product first.

    Args:
        frame: Rows of the store; accuracies in [0, 1].
        by: Columns to group by.
        metrics: Columns to average.

    Returns:
        The columns ``by``; if a method had a trusted set, ``trusted``, the number of its images, 0
        without: methods without one come first; ``n``, the number of cells; per metric its mean and ``<metric>_sem``,
        NaN for one cell; with ``healed_utility`` also its error over seeds alone; the number of
        cells that collapsed (counted as 0) and failed (left out of means).

    Raises:
        ValueError: If there are no rows or a column is absent.
    """
    missing = [c for c in (*by, *metrics, "status", "seed") if c not in frame]
    if frame.empty or missing:
        raise ValueError(f"no results to show: {len(frame)} rows, missing columns {missing}")
    frame = fill_collapsed(frame, metrics)
    rows, blocks = [], "method" in by and bool(is_trusted(frame).any())
    for key, group in frame.groupby(list(by), dropna=False):
        row: dict[str, Any] = dict(zip(by, key, strict=True))
        row |= ({"trusted": count_images(group)} if blocks else {}) | {"n": len(group)}
        for metric in metrics:
            row[metric] = group[metric].mean()
            row[f"{metric}_sem"] = standard_error(group[metric])
            if metric == "healed_utility":
                row[SEED_ERROR] = standard_error(group.groupby("seed")[metric].mean())
        if "method" in by:
            row["role"] = read_fact(group, "role").iloc[0]
        row["collapsed"] = int((group["status"] == "collapsed").sum())
        row["failed"] = int(is_failed(group).sum())
        rows.append(row)
    out = pd.DataFrame(rows)
    if "healed_utility" in out:
        out = out.sort_values("healed_utility", ascending=False, ignore_index=True, kind="stable")
    return sort_blocks(out)


def sort_blocks(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the methods without a trusted set first, otherwise in its order."""
    if "trusted" not in table:
        return table
    with_set = (table["trusted"] > 0).to_numpy()
    return pd.concat([table[~with_set], table[with_set]], ignore_index=True)


def summarize_methods(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the summary per method with its rank among the others.

    Args:
        frame: Rows, prepared.

    Returns:
        The columns of ``summarize_metrics``, then ``rank`` over the common tasks; ``worst`` and
        ``worst_cell``, the task with the lowest mean over seeds; ``time``, seconds relative to
        retraining; ``missing``, the cells that others have.
    """
    known = RECOVERED in frame and bool(frame[RECOVERED].notna().any())
    metrics = (*HEADLINE[:3], RECOVERED, *HEADLINE[3:]) if known else HEADLINE
    out = summarize_metrics(frame, metrics=metrics)
    worst = worst_cells(frame)
    last = [out.pop(c) for c in ("role", "collapsed", "failed")]
    out["rank"] = out["method"].map(mean_ranks(frame))
    out["worst"] = out["method"].map(worst["worst"])
    out["worst_cell"] = out["method"].map(worst["worst_cell"])
    out["time"] = out["method"].map(relative_time(frame))
    out["missing"] = out["method"].map(missing_cells(frame)).fillna(0).astype(int)
    return pd.concat([out, *last], axis=1)


def average_cells(frame: pd.DataFrame, value: str = "healed_utility") -> pd.DataFrame:
    """Return the mean of a column per method (rows), corruption and discovery rate (columns).

    Cells that failed for all seeds are NaN; ``pivot_table`` would drop their row or column.
    """
    task = ["corruption", "discovery"]
    means = fill_collapsed(frame, [value]).groupby(["method", *task])[value].mean()
    return means.unstack(task).sort_index(axis=1)


def select_shown(table: pd.DataFrame) -> list[str]:
    """Return the columns to show: errors follow their means, counts only if any."""
    return [str(c) for c in table if _is_informative(table, str(c))]


def _is_informative(table: pd.DataFrame, name: str) -> bool:
    if name == "role" or name.endswith(ERRORS):
        return False
    if name in ("dataset", "model", "corruption") and "localization" in table:
        return table[name].nunique() > 1  # constant columns are not informative
    if name in COUNTS:
        return bool(table[name].any())
    if name in ("worst", "worst_cell", "rank"):
        return bool((table["n"] > 1).any())
    if (
        name == "n" and "rank" in table
    ):  # the title gives the number; counts are shown if they differ
        return table["n"].nunique() > 1
    if name == "seconds" and "time" in table:
        return bool((table["n"] == 1).all()) or not table["time"].notna().any()
    if name in ("time", "seed_error"):
        return bool(table[name].notna().any())
    return True


def rank_best(table: pd.DataFrame) -> dict[str, dict[int, int]]:
    """Return which rows are best (1) and second best (2) per ranked column, as displayed.

    Values equal to three digits share a rank; upper bounds are not ranked, and methods with a
    trusted set are ranked among themselves.
    """
    named = table["method"] if "method" in table else pd.Series("", table.index)
    unranked = named.isin(labels_of_role(table, UPPER_BOUND)) if "method" in table else named != ""
    if "tow" in table:  # closeness to retraining: another retrained model is not ranked
        unranked |= named.isin(labels_of_role(table, REFERENCE))
    won = ("tow", "tow_mia", "mia_gap")
    won += ("healed", "utility", "healed_utility", RECOVERED, "worst", "rank")
    won += ("high", "medium", "low", "rate_low", "rate_mid", "rate_high")
    out: dict[str, dict[int, int]] = {}
    for name in won:
        if name not in table:
            continue
        values = table[name].where(~unranked).astype(float).round(3).reset_index(drop=True)
        given = table["trusted"] > 0 if "trusted" in table else pd.Series(False, table.index)
        out[name] = {}
        for _, block in values.groupby(given.reset_index(drop=True)):
            best = np.sort(block.dropna().unique())[:: 1 if name in LOWER else -1][:2]
            out[name] |= {
                int(i): place for place, v in enumerate(best, 1) for i in block.index[block == v]
            }
    return out
