"""Overlap and depth of the masks of several localizations (arXiv 2412.02432).

Ours: depth as a number. The first layer has depth 0, the last 1.
"""

from collections.abc import Mapping

from unlearn.evaluation.diagnosis.layer_gradients import Groups
from unlearn.methods.localization.mask import Mask

THIRDS = ("input", "middle", "output")


def mean_depth(mask: Mask, groups: Groups) -> float:
    """Return the mean depth of the chosen parameters, in [0, 1]."""
    counts = mask.count_movable_by_parameter()
    chosen = [sum(counts[n] for n in names) for names in groups.values()]
    last = max(1, len(chosen) - 1)
    return sum(i / last * count for i, count in enumerate(chosen)) / sum(chosen)


def by_third(mask: Mask, groups: Groups) -> dict[str, float]:
    """Return the fraction of chosen parameters in each third of the layers, in [0, 1].

    Layers that do not divide by three go to the thirds at the input. A third without layers is
    left out.
    """
    layers = list(groups.values())
    out, start = {}, 0
    for i, third in enumerate(THIRDS):
        stop = start + len(layers) // 3 + (i < len(layers) % 3)
        if stop > start:
            names = [n for group in layers[start:stop] for n in group]
            out[third] = mask.compute_group_shares({third: names})[third]
        start = stop
    return out


def compute_overlaps(masks: Mapping[str, Mask]) -> dict[str, dict[str, float]]:
    """Return the Jaccard overlap of every two masks, over all parameters, in [0, 1]."""
    return {
        one: {two: first.compute_jaccard_overlap(second)[""] for two, second in masks.items()}
        for one, first in masks.items()
    }
