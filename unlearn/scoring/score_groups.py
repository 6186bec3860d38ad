"""Grades of difficulty: sets of samples by a score, and by entanglement in the features.

Sources: arXiv 2406.01257, 2410.16516. Differs: ties are broken by one fixed order, the groups are
disjoint, means are over samples and not over batches.
Shapes: N samples, E embedding.
"""

import math

import torch
from torch import Tensor

GROUPS: tuple[str, ...] = ("low", "mid", "high")
TIE_SEED = 0


def sort_ascending(score: Tensor, tie_seed: int = TIE_SEED) -> Tensor:
    """Return positions in ascending order of ``score`` (N,); one fixed random order breaks ties."""
    shuffled = torch.randperm(len(score), generator=torch.Generator().manual_seed(tie_seed))
    return shuffled[torch.argsort(score[shuffled], stable=True)]


def center_of(score: Tensor, center: str | float) -> float:
    """Return "median", "midrange" (halfway between the extremes), or the number itself.

    Raises:
        ValueError: If it is another word.
    """
    if center == "median":
        return score.median().item()
    if center == "midrange":
        return ((score.min() + score.max()) / 2).item()
    if isinstance(center, str):
        raise ValueError(f"center must be median, midrange or a number, got {center}")
    return float(center)


def select_graded(
    score: Tensor, sizes: dict[str, int], center: float, tie_seed: int = TIE_SEED
) -> tuple[dict[str, Tensor], int]:
    """Return disjoint groups of samples: the highest, then the lowest, then those nearest a centre.

    Args:
        score: Larger is more memorized, (N,).
        sizes: How many samples for "low", "mid", "high".
        center: Of "mid".
        tie_seed: Of the order that breaks ties.

    Returns:
        Sorted positions by name, and how many of the nearest ones were in another group already.

    Raises:
        ValueError: If there are not enough samples, or a score is no number.
    """
    if sum(sizes.values()) > len(score):
        raise ValueError(f"cannot choose {sum(sizes.values())} of {len(score)} samples")
    if not torch.isfinite(score).all():
        raise ValueError("a score is not finite")
    order = sort_ascending(score, tie_seed)
    low, high = sizes.get("low", 0), sizes.get("high", 0)
    rest = order[low : len(order) - high]
    wanted = sizes.get("mid", 0)
    distance = (score - center).abs()
    # ``ascending`` of the distance among all: who would be nearest if nobody were taken.
    nearest = sort_ascending(distance, tie_seed)[:wanted]
    displaced = int((~torch.isin(nearest, rest)).sum())
    free = torch.isin(sort_ascending(distance, tie_seed), rest)
    mid = sort_ascending(distance, tie_seed)[free][:wanted]
    parts = {"low": order[:low], "mid": mid, "high": order[len(order) - high :]}
    return {name: parts[name].sort().values for name in sizes}, displaced


def entanglement_score(
    embedding: Tensor, forget: Tensor, retain: Tensor, center: str = "exact"
) -> float:
    """Return how entangled two sets are: spread within over distance between (arXiv 2406.01257).

    Args:
        embedding: Of all samples, (N, E).
        forget: Positions of the forget set.
        retain: Positions of the retain set.
        center: Of the denominator: "exact", the mean of both sets together; "midpoint", halfway
            between the two means, as published values seem to have it (1.75 times larger for 3,000
            of 45,000). Differs: means are over samples, not over batches.

    Returns:
        At least 0, infinite if both means coincide.

    Raises:
        ValueError: If ``center`` is unknown.
    """
    if center not in ("exact", "midpoint"):
        raise ValueError(f"center must be exact or midpoint, got {center}")
    phi = embedding.double()
    f, r = phi[forget], phi[retain]
    mean_f, mean_r = f.mean(0), r.mean(0)
    middle = torch.cat([f, r]).mean(0) if center == "exact" else (mean_f + mean_r) / 2
    within = ((r - mean_r) ** 2).sum(1).mean() + ((f - mean_f) ** 2).sum(1).mean()
    between = (((mean_r - middle) ** 2).sum() + ((mean_f - middle) ** 2).sum()) / 2
    return math.inf if between < 1e-12 else (within / between).item()


def by_distance(embedding: Tensor, num_groups: int, size: int) -> list[Tensor]:
    """Return groups of samples, (size,) each, from near the centre of all features to far from it.

    Raises:
        ValueError: If the groups are smaller than ``size``.
    """
    width = len(embedding) // num_groups
    if not 1 <= size <= width:
        raise ValueError(
            f"{num_groups} groups of {len(embedding)} samples hold {width} each; "
            f"cannot take {size} of one"
        )
    phi = embedding.double()
    order = sort_ascending((phi - phi.mean(0)).norm(dim=1))
    return [order[g * width : g * width + size].sort().values for g in range(num_groups)]


def rank_entanglements(scores: list[float]) -> dict[str, int]:
    """Return which group is of low, mid and high entanglement.

    The extremes, and the one nearest halfway between them on a logarithmic scale.

    Raises:
        ValueError: If fewer than three are finite.
    """
    finite = [i for i, s in enumerate(scores) if 0 < s < math.inf]
    if len(finite) < 3:
        raise ValueError(f"cannot grade groups with entanglement {scores}")
    low, high = min(finite, key=scores.__getitem__), max(finite, key=scores.__getitem__)
    middle = (math.log(scores[low]) + math.log(scores[high])) / 2
    others = [i for i in finite if i not in (low, high)]
    return {
        "low": low,
        "mid": min(others, key=lambda i: abs(math.log(scores[i]) - middle)),
        "high": high,
    }
