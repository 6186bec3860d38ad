"""Agreement of two memorization scores.

Shapes: N samples.
"""

import math

import torch
from scipy import stats
from torch import Tensor

from unlearn.scoring.score_groups import GROUPS, center_of, select_graded


def spearman_correlation(first: Tensor, second: Tensor) -> float:
    """Return the rank correlation of two scores (N,), ties with their mean rank; NaN if one is constant."""
    if first.unique().numel() < 2 or second.unique().numel() < 2:
        return math.nan
    value, _ = stats.spearmanr(first.numpy(), second.numpy())
    return float(value)  # type: ignore[arg-type]


def kendall_correlation(first: Tensor, second: Tensor) -> float:
    """Return Kendall's tau-b of two scores (N,); NaN if one is constant."""
    if first.unique().numel() < 2 or second.unique().numel() < 2:
        return math.nan
    value, _ = stats.kendalltau(first.numpy(), second.numpy())
    return float(value)  # type: ignore[arg-type]


def group_overlap(
    first: Tensor, second: Tensor, size: int, centers: tuple[str | float, str | float]
) -> dict[str, float]:
    """Return the overlap of the low, mid and high groups of two scores, in [0, 1].

    Args:
        first: Score, (N,).
        second: Score, (N,).
        size: Number of samples in each group.
        centers: Center of the mid group for each score.
    """
    sets = []
    for score, center in zip((first, second), centers, strict=True):
        sizes = dict.fromkeys(GROUPS, size)
        sets.append(select_graded(score, sizes, center_of(score, center))[0])
    return {g: torch.isin(sets[0][g], sets[1][g]).double().mean().item() for g in GROUPS}
