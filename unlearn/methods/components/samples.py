"""Samples of a set, on which a method measures."""

import torch

from unlearn.core.types import ImageSet


def select_evenly_spaced(data: ImageSet, samples: int | None) -> ImageSet:
    """Return ``samples`` evenly spaced samples of the set; None: the whole set."""
    if samples is None or samples >= len(data):
        return data
    keep = torch.linspace(0, len(data) - 1, samples).round().long()
    return data.rows(keep.to(data.label.device))
