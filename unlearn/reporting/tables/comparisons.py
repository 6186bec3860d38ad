"""Comparisons of methods: ranks, time, worst cells, regions of the task space, significance.

A comparison is made on cells that all compared methods have; a collapsed cell counts as 0, a failed
or absent one is missing. Conventions: arXiv 2505.17730.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from unlearn.core.words import count_noun
from unlearn.reporting.tables.facts import (
    LEVELS,
    REFERENCE,
    is_upper_bound,
    labels_of_role,
    plain_name,
    read_fact,
)
from unlearn.reporting.tables.frames import (
    BANDS,
    DISCOVERY,
    TASK,
    by_cell,
    existing_columns,
    fill_collapsed,
    rate_band,
    standard_error,
)
from unlearn.reporting.tables.trusted import count_images, is_trusted, iterate_blocks

SCORE = "healed_utility"
TEST = "two-sided Wilcoxon signed-rank test over paired cells, Holm-corrected"
REGIONS = (*LEVELS, *(f"rate_{name}" for name in BANDS))


def mean_ranks(frame: pd.DataFrame, value: str = SCORE) -> pd.Series:
    """Return each method's mean rank over the common tasks, 1 is best; ties share ranks.

    Methods with a trusted set are ranked among themselves.

    Args:
        frame: Rows, prepared.
        value: Column to rank by, averaged over seeds.

    Returns:
        Indexed by method; NaN if no task is common to all.
    """
    tables = [by_cell(part, value, seeds=False).dropna() for part in iterate_blocks(frame)]
    return pd.concat([table.rank(axis=1, ascending=False).mean() for table in tables])


def missing_cells(frame: pd.DataFrame, value: str = SCORE) -> pd.Series:
    """Return the number of missing cells per method, among the cells of any method."""
    return by_cell(frame, value).isna().sum()


def worst_cells(frame: pd.DataFrame, value: str = SCORE) -> pd.DataFrame:
    """Return each method's lowest mean over seeds and its task.

    Returns:
        Indexed by method: ``worst`` and ``worst_cell``, such as "poison 0.1".
    """
    table = by_cell(frame, value, seeds=False)
    short = _shorten_names(frame["corruption"].astype(str).unique())
    out = {}
    for method, values in table.items():
        known = values.dropna()
        if len(known):
            names = map(str, table.index.names)
            task = dict(zip(names, _as_tuple(known.idxmin()), strict=True))
            out[method] = {"worst": known.min(), "worst_cell": _task_name(task, short)}
        else:
            out[method] = {"worst": np.nan, "worst_cell": None}
    return pd.DataFrame.from_dict(out, orient="index")


def _as_tuple(key: object) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _shorten_names(names: Iterable[str]) -> dict[str, str]:
    """Return the first word of each name, the whole name if several begin with this word."""
    words = {name: name.partition("_")[0] for name in names}
    count = Counter(words.values())
    return {n: w if count[w] == 1 else n.replace("_", " ") for n, w in words.items()}


def _task_name(task: dict[str, Any], short: Mapping[str, str]) -> str:
    rate, by = task.get("discovery"), task.get("discovery/by")
    text = short.get(str(task.get("corruption")), "")
    if isinstance(by, str):
        return f"{text} {by}"
    return text if rate is None or pd.isna(rate) else f"{text} {rate:g}"


def relative_time(frame: pd.DataFrame) -> pd.Series:
    """Return each method's mean ratio of seconds to those of retraining on the same cell.

    The reference is the retrained model of the same pre-training, else the first one; without a
    reference: NaN.
    """
    seconds = by_cell(frame, "seconds")
    references = sorted(labels_of_role(frame, REFERENCE))
    by_pretraining = {str(m).removeprefix(plain_name(str(m))): m for m in references}
    first = next(iter(references), None)
    out = {}
    for method in seconds:
        name = by_pretraining.get(str(method).removeprefix(plain_name(str(method))), first)
        out[method] = np.nan if name is None else (seconds[method] / seconds[name]).mean()
    return pd.Series(out, dtype=float)


def compare_regions(frame: pd.DataFrame, value: str = SCORE) -> pd.DataFrame:
    """Return mean and standard error per region of the plane, best mean first.

    Args:
        frame: Rows, prepared.
        value: Column to average over cells.

    Returns:
        ``method``; ``trusted`` as in ``summarize_metrics``; ``n``; per regularity of the corruption (high, medium, low; another corruption
        by its own name) and per band of discovery rates (``rate_low``, ...) the mean and its
        error ``<region>_sem``; the error over seeds alone, ``seed_error``.
    """
    frame = fill_collapsed(frame, [value])
    level = read_fact(frame, "regularity").fillna(frame["corruption"].astype(str))
    rate = frame["discovery"].map(lambda d: f"rate_{rate_band(d)}" if rate_band(d) else None)
    found = set(level) | set(rate)
    names = [n for n in REGIONS if n in found] + sorted(set(level) - set(REGIONS))
    rows, blocks = [], bool(is_trusted(frame).any())
    for method, group in frame.groupby("method"):
        row: dict[str, Any] = {"method": method}
        row |= ({"trusted": count_images(group)} if blocks else {}) | {"n": len(group)}
        for name in names:
            inside = group.loc[(level == name) | (rate == name), value]
            row |= {name: inside.mean(), f"{name}_sem": standard_error(inside)}
        row["seed_error"] = standard_error(group.groupby("seed")[value].mean())
        rows.append((group[value].mean(), row))
    rows.sort(key=lambda pair: (pair[1].get("trusted", 0) > 0, -np.nan_to_num(pair[0], nan=-1.0)))
    return pd.DataFrame([row for _, row in rows])


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down rule; NaN stays and does not count as a test.

    The smallest of m is multiplied by m, the next by m - 1, ..., none below the one before, at
    most 1.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if not np.isnan(p))
    out = [float("nan")] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        out[i] = highest
    return out


def paired_p(differences: pd.Series) -> float:
    """Return the p-value of Wilcoxon's signed-rank test; 1 if all are 0, NaN below two."""
    if len(differences) < 2:
        return float("nan")
    if not differences.any():
        return 1.0
    exact = len(differences) <= 50 and differences.abs().is_unique and bool(differences.all())
    # Zeros are dropped; ties have no exact distribution, so the normal approximation is used.
    result = stats.wilcoxon(differences, method="exact" if exact else "asymptotic")
    return float(np.asarray(result)[1])  # statistic, p


def best_method(frame: pd.DataFrame, value: str = SCORE) -> str | None:
    """Return the method with the highest mean over the common cells, else over its own.

    Upper bounds are excluded.
    """
    table = by_cell(frame[~is_upper_bound(frame)], value).dropna(axis=1, how="all")
    means = (table.dropna() if len(table.dropna()) else table).mean()
    return None if means.empty else str(means.idxmax())


def compare_with_best(frame: pd.DataFrame, value: str = SCORE) -> pd.DataFrame:
    """Return the comparison of the best method with each other method on common cells.

    Methods with a trusted set are compared among themselves, after the others.

    Args:
        frame: Rows, prepared.
        value: Column to compare.

    Returns:
        ``best``, ``method``, ``n`` common cells, ``difference`` and its error, ``p``, ``p_holm``,
        ``significant`` at 0.05. Cells of one task count as independent.
    """
    parts = [_compare_block(part, value) for part in iterate_blocks(frame)]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _compare_block(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the comparison of the best method of a block with the others of the block."""
    best = best_method(frame, value)
    table = by_cell(frame, value)
    rows: list[dict[str, Any]] = []
    for method in table:
        if best is None or method == best:
            continue
        gaps = (
            (table[best] - table[method]).dropna().round(12)
        )  # rounding: 0.3 - 0.2 and 0.2 - 0.1 are a tie
        row = {"best": best, "method": method, "n": len(gaps), "difference": gaps.mean()}
        rows.append(row | {"difference_sem": standard_error(gaps), "p": paired_p(gaps)})
    out = pd.DataFrame(
        rows, columns=["best", "method", "n", "difference", "difference_sem", "p"]
    ).sort_values("difference", ignore_index=True, kind="stable")
    out["p_holm"] = holm_correction(list(out["p"]))
    out["significant"] = ["yes" if p < 0.05 else "no" for p in out["p_holm"]]
    return out


def count_settings(frame: pd.DataFrame) -> int:
    """Return the number of combinations of data, network and amount of corruption."""
    own = existing_columns(frame, [c for c in TASK if c not in ("corruption", *DISCOVERY)])
    return len(frame[own].drop_duplicates()) if own else 1


def count_repeats(frame: pd.DataFrame) -> int:
    """Return the number of cells with several runs, which are averaged: their options differ."""
    cell = existing_columns(frame, (*TASK, "method", "seed"))
    return int((frame.groupby(cell, dropna=False).size() > 1).sum())


def list_cautions(frame: pd.DataFrame) -> list[str]:
    """Return a line for each reason why means over the rows may mislead."""
    lines, mixed, several = [], count_settings(frame), count_repeats(frame)
    if mixed > 1:
        lines.append(
            f"averaging over {mixed} settings of data, model and amount; select one by where="
        )
    if several:
        lines.append(f"{count_noun(several, 'cell')} with several runs of different options")
    missing = missing_cells(frame)
    if missing.any():
        text = ", ".join(f"{method} {n}" for method, n in missing[missing > 0].items())
        lines.append(f"cells without a value, excluded from ranks and tests: {text}")
    return lines
