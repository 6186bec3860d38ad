"""Random label noise: low statistical regularity, must be memorised sample by sample.

Source: "Corrective Machine Unlearning" (arXiv 2402.14015), REM (arXiv 2505.17730). Re-implemented.
Differs: a wrong label is always different from the right one.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from unlearn.core.types import ImageSet
from unlearn.data.corruption.base import Corruption, draw_samples, index_to_mask
from unlearn.data.task import Truth


@dataclass(frozen=True, kw_only=True)
class RandomLabel(Corruption):
    """Give randomly chosen samples a uniformly drawn wrong label."""

    regularity: ClassVar[str | None] = "low"

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with ``count`` wrong labels: (y + r) mod K, r uniform in 1..K-1."""
        generator = torch.Generator().manual_seed(seed)
        chosen = draw_samples(torch.arange(len(clean)), count, generator)
        k = clean.num_classes
        shift = torch.randint(1, k, (count,), generator=generator)
        label = clean.label.clone()
        label[chosen] = (label[chosen] + shift) % k
        truth = Truth(clean_label=clean.label, corrupted=index_to_mask(len(clean), chosen))
        return replace(clean, label=label), truth
