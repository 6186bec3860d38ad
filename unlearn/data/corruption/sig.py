"""Clean-label backdoor with a sinusoidal pattern (SIG).

Source: "A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning"
(arXiv 1902.11237). Re-implemented. Differs: applied after augmentation.
"""

import math
from dataclasses import dataclass

import torch

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import CleanLabelAttack, check_range
from unlearn.data.corruption.triggers import AddPattern, DeviceTensor, PixelChange

CYCLES, WIDTH = 6, 32
"""The source's number of cycles and its image width in pixels."""


@dataclass(frozen=True, kw_only=True)
class Sig(CleanLabelAttack):
    """``x + a sin(2 pi j f / W)``, j the column: equal in all rows, channels and samples.

    Attributes:
        amplitude: a, in [0, 1]; pixels are in [0, 1].
        frequency: f, cycles over the width W; None: 6 at 32 pixels, in proportion at other widths.
    """

    amplitude: float
    frequency: int | None

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        check_range("amplitude", self.amplitude, 0, 1)
        if self.frequency is not None and self.frequency < 1:
            raise ValueError(f"corruption.frequency must be at least 1, got {self.frequency}")

    def make_trigger(self, clean: ImageSet, generator: torch.Generator) -> PixelChange:
        """Return the trigger.

        Raises:
            ValueError: If a pattern of this frequency is zero at all columns.
        """
        w = clean.image.shape[-1]
        f = self.frequency
        if f is None:
            f = max(1, round(CYCLES * w / WIDTH))
        if 2 * f % w == 0:
            raise ValueError(
                f"corruption.frequency={f} is zero at every column of images of width {w}; "
                f"choose one below {w / 2:g}"
            )
        pattern = self.amplitude * torch.sin(2 * math.pi * f / w * torch.arange(w))
        return AddPattern(1.0, DeviceTensor(pattern))
