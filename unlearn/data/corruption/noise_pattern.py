"""Backdoor with one weak noise pattern added to the whole image. Ours, after arXiv 1712.05526."""

from dataclasses import dataclass

import torch

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import DirtyLabelAttack, check_range
from unlearn.data.corruption.triggers import AddPattern, DeviceTensor, PixelChange


@dataclass(frozen=True, kw_only=True)
class NoisePattern(DirtyLabelAttack):
    """``x + a (2 k - 1)`` with one noise image k in [0, 1] for all samples.

    Attributes:
        amplitude: a, in [0, 1]; pixels are in [0, 1].
    """

    amplitude: float

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        super().__post_init__()
        check_range("amplitude", self.amplitude, 0, 1)

    def make_trigger(self, clean: ImageSet, generator: torch.Generator) -> PixelChange:
        """Return the trigger."""
        noise = torch.rand(clean.image.shape[1:], generator=generator)
        return AddPattern(1.0, DeviceTensor(self.amplitude * (2 * noise - 1)))
