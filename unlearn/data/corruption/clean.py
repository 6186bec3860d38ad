"""No corruption: for data that is already bad, and for plain training."""

from dataclasses import dataclass

import torch

from unlearn.core.types import ImageSet
from unlearn.data.corruption.base import Corruption
from unlearn.data.task import Truth


@dataclass(frozen=True, kw_only=True)
class Clean(Corruption):
    """Leave the training set unchanged."""

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set itself; ``count`` and ``seed`` are unused."""
        return clean, Truth(clean_label=clean.label, corrupted=torch.zeros_like(clean.label).bool())
