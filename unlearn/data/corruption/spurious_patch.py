"""A spurious correlation: most images of one class carry a patch, few or none of the others.

Ours, after clean-label backdoors with a high rate: labels stay right, and no attacker is meant.
Shapes: N samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import CleanLabelAttack, Layer, check_choice, check_range
from unlearn.data.corruption.base import draw_samples, index_to_mask
from unlearn.data.corruption.poison import CORNERS
from unlearn.data.corruption.triggers import DeviceTensor, Paste, PixelChange


@dataclass(frozen=True, kw_only=True)
class SpuriousPatch(CleanLabelAttack):
    """Put a white square on samples of the target class, and on a share of all others.

    Attributes:
        patch_size: Side of the square in pixels.
        corner: Corner of the image.
        other_rate: Share of the samples of other classes that carry the patch too; they are not
            corrupted, and weaken the correlation.
    """

    patch_size: int
    corner: str
    other_rate: float

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        check_choice("corner", self.corner, tuple(CORNERS))
        check_range("other_rate", self.other_rate, 0, 1)

    def make_trigger(self, clean: ImageSet, generator: torch.Generator) -> PixelChange:
        """Return the patch.

        Raises:
            ValueError: If it exceeds the image.
        """
        h, w = clean.image.shape[-2:]
        if not 1 <= self.patch_size <= min(h, w):
            raise ValueError(
                f"corruption.patch_size must be in 1..{min(h, w)}, got {self.patch_size}"
            )
        down, right = CORNERS[self.corner]
        top, left = down * (h - self.patch_size), right * (w - self.patch_size)
        mask = torch.zeros(h, w, dtype=torch.bool)
        mask[top : top + self.patch_size, left : left + self.patch_size] = True
        return Paste(DeviceTensor(mask), DeviceTensor(torch.ones(h, w)))

    def add_changes(
        self, clean: ImageSet, kept: Tensor, trigger: PixelChange, generator: torch.Generator
    ) -> Sequence[Layer]:
        """Return the patch on a share of the samples of other classes.

        Raises:
            ValueError: If too few are left beside those that healed accuracy is measured on.
        """
        others = clean.label != self.target_class
        size = round(self.other_rate * int(others.sum()))
        if not size:
            return ()
        pool = (others & ~index_to_mask(len(clean), kept)).nonzero().flatten()
        if size > len(pool):
            raise ValueError(
                f"corruption.other_rate={self.other_rate} needs {size} samples of other classes, "
                f"{len(pool)} are left beside the {len(kept)} that healed accuracy is measured on"
            )
        return [(trigger, index_to_mask(len(clean), draw_samples(pool, size, generator)))]
