"""Backdoor with a smooth pattern added to the whole image.

Source: "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective" (arXiv 2104.03413).
Differs: the pattern is random, of the lowest frequencies of the cosine transform; the paper
optimises it on a network.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import DirtyLabelAttack, check_range
from unlearn.data.corruption.triggers import AddPattern, DeviceTensor, PixelChange


@dataclass(frozen=True, kw_only=True)
class LowFrequency(DirtyLabelAttack):
    """``x + g`` with one smooth g in [0, a] for all samples.

    Attributes:
        amplitude: a, in [0, 1]; pixels are in [0, 1].
        num_frequencies: Lowest frequencies per direction, at least 2.
    """

    amplitude: float
    num_frequencies: int | None

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        super().__post_init__()
        check_range("amplitude", self.amplitude, 0, 1)
        if self.num_frequencies is None or self.num_frequencies < 2:
            raise ValueError(
                f"corruption.num_frequencies must be at least 2, got {self.num_frequencies}"
            )

    def make_trigger(self, clean: ImageSet, generator: torch.Generator) -> PixelChange:
        """Return the trigger.

        Raises:
            ValueError: If the image has fewer frequencies.
        """
        c, h, w = clean.image.shape[1:]
        m = self.num_frequencies or 2
        if m > min(h, w):
            raise ValueError(f"corruption.num_frequencies must be at most {min(h, w)}, got {m}")
        coefficient = torch.randn(c, m, m, generator=generator)
        smooth = cosines(m, h).T @ coefficient @ cosines(m, w)
        smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
        return AddPattern(1.0, DeviceTensor(self.amplitude * smooth))


def cosines(count: int, size: int) -> Tensor:
    """Return the lowest ``count`` basis functions of the cosine transform (DCT-II), (count, size)."""
    place = (torch.arange(size) + 0.5) * math.pi / size
    return torch.cos(torch.arange(count)[:, None] * place)
