"""What corruptions share: how many samples to take, and a seeded choice of them.

Shapes: N samples.
"""

from typing import Protocol

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.task import Truth


class Corruption(Protocol):
    """Turns a clean training set into the one that the victim received."""

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the corrupted set and the truth about it; exactly ``count`` samples are touched."""
        ...


def choose(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` entries of ``pool`` int64 (N,), uniform without replacement, sorted.

    Raises:
        ValueError: If the pool is smaller than ``count``.
    """
    if count > len(pool):
        raise ValueError(f"cannot corrupt {count} samples, only {len(pool)} are eligible")
    return pool[torch.randperm(len(pool), generator=generator)[:count]].sort().values


def flags(size: int, index: Tensor) -> Tensor:
    """Return bool (size,), True at ``index``."""
    on = torch.zeros(size, dtype=torch.bool)
    on[index] = True
    return on
