"""Backdoor with a faint noise image over the whole image (blended injection).

Source: "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning" (arXiv 1712.05526).
Re-implemented. Differs: the image is uniform noise, drawn once, and applied after augmentation.
"""

from dataclasses import dataclass

import torch

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import DirtyLabelAttack, check_range
from unlearn.data.corruption.triggers import AddPattern, DeviceTensor, PixelChange


@dataclass(frozen=True, kw_only=True)
class Blended(DirtyLabelAttack):
    """``(1 - a) x + a k`` with one noise image k in [0, 1] for all samples.

    Attributes:
        strength: a, in [0, 1].
    """

    strength: float

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        super().__post_init__()
        check_range("strength", self.strength, 0, 1)

    def make_trigger(self, clean: ImageSet, generator: torch.Generator) -> PixelChange:
        """Return the trigger."""
        noise = torch.rand(clean.image.shape[1:], generator=generator)
        return AddPattern(1 - self.strength, DeviceTensor(self.strength * noise))
