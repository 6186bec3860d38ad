"""Groups of samples by score, and by entanglement in feature space.

Sources: arXiv 2406.01257, 2410.16516. Differs: ties are broken by a fixed order, groups are
disjoint, and means are over samples instead of batches.
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
        ValueError: If it is another string.
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
    """Return disjoint groups of samples: the highest, the lowest, and those nearest to ``center``.

    Args:
        score: Larger is more memorized, (N,).
        sizes: Number of samples for "low", "mid", "high".
        center: Center of "mid".
        tie_seed: Seed of the order of samples with equal scores.

    Returns:
        Sorted positions by name, and the number of nearest samples that are in another group.

    Raises:
        ValueError: If there are not enough samples, or a score is not finite.
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
    # The nearest samples if none were in another group.
    nearest = sort_ascending(distance, tie_seed)[:wanted]
    displaced = int((~torch.isin(nearest, rest)).sum())
    free = torch.isin(sort_ascending(distance, tie_seed), rest)
    mid = sort_ascending(distance, tie_seed)[free][:wanted]
    parts = {"low": order[:low], "mid": mid, "high": order[len(order) - high :]}
    return {name: parts[name].sort().values for name in sizes}, displaced


def entanglement_score(
    embedding: Tensor, forget: Tensor, retain: Tensor, center: str = "exact"
) -> float:
    """Return the entanglement (arXiv 2406.01257): variance within over distance between two sets.

    Args:
        embedding: Embedding of all samples, (N, E).
        forget: Positions of the forget set.
        retain: Positions of the retain set.
        center: Center in the denominator: "exact", the mean of both sets together; "midpoint" of
            the two means, apparently used for published values (1.75 times larger for 3,000 of
            45,000). Differs: means are over samples, not over batches.

    Returns:
        At least 0; infinite if both means are equal.

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
    """Return groups of samples, (size,) each, by increasing distance from the mean feature.

    Raises:
        ValueError: If the groups are smaller than ``size``.
    """
    width = len(embedding) // num_groups
    if not 1 <= size <= width:
        raise ValueError(
            f"{num_groups} groups of {len(embedding)} samples hold {width} each; "
            f"cannot take {size} from a group"
        )
    phi = embedding.double()
    order = sort_ascending((phi - phi.mean(0)).norm(dim=1))
    return [order[g * width : g * width + size].sort().values for g in range(num_groups)]


def rank_entanglements(scores: list[float]) -> dict[str, int]:
    """Return the groups of low, mid and high entanglement.

    "low" and "high" are the extremes, "mid" is nearest to their midpoint on a logarithmic scale.

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
