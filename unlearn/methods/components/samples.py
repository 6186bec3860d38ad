"""Samples of a set, on which a method measures."""

import torch
from torch import Tensor

from unlearn.core.types import ImageSet


def select_evenly_spaced(data: ImageSet, samples: int | None) -> ImageSet:
    """Return ``samples`` evenly spaced samples of the set; None: the whole set."""
    if samples is None or samples >= len(data):
        return data
    keep = torch.linspace(0, len(data) - 1, samples).round().long()
    return data.rows(keep.to(data.label.device))


def split_positions(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return two random halves of the positions of a list, each sorted: given, held out."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return order[: size // 2].sort().values, order[size // 2 :].sort().values
