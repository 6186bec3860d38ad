"""Base class of corruptions, and the seeded choice of samples.

Shapes: N samples.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.task import Truth


class Corruption(ABC):
    """Base class of corruptions, which turn a clean training set into the received one.

    Attributes:
        regularity: Level of statistical regularity: "high", "medium", "low"; None if unknown
            (arXiv 2505.17730).
        multiple: How many samples are corrupted at a time; 2 if pairs swap labels.
    """

    regularity: ClassVar[str | None] = None
    multiple: ClassVar[int] = 1

    @abstractmethod
    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the corrupted set and its ground truth; corrupt exactly ``count`` samples."""


def draw_samples(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` entries of ``pool`` int64 (N,), uniform without replacement, sorted.

    Raises:
        ValueError: If the pool is smaller than ``count``.
    """
    if count > len(pool):
        raise ValueError(f"cannot corrupt {count} samples, only {len(pool)} are eligible")
    return pool[torch.randperm(len(pool), generator=generator)[:count]].sort().values


def index_to_mask(size: int, index: Tensor) -> Tensor:
    """Return bool (size,), True at ``index``."""
    on = torch.zeros(size, dtype=torch.bool)
    on[index] = True
    return on
