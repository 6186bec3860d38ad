"""Backdoor whose trigger is a slight smooth warp of the image (WaNet).

Source: "WaNet - Imperceptible Warping-based Backdoor Attack" (arXiv 2102.10369). Re-implemented.
Differs: poisoned data instead of a controlled training, so samples and warps are drawn once; the
paper draws both anew in every batch. Shapes: M fields, H W image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import DirtyLabelAttack, Layer, check_range
from unlearn.data.corruption.base import draw_samples, index_to_mask
from unlearn.data.corruption.triggers import DeviceTensor, PixelChange, Warp

COVER_FIELDS = 64
"""Number of random warps of cover samples, shared by sample index."""


@dataclass(frozen=True, kw_only=True)
class WaNet(DirtyLabelAttack):
    """Warp samples by one smooth field; cover samples get other warps and keep their label.

    Attributes:
        grid_size: Points per direction of the random field, at least 2.
        strength: Mean absolute displacement, in pixels: about half of this.
        cover: Cover samples per corrupted sample. They are not corrupted; without them, a network
            reacts to any warp.
    """

    grid_size: int
    strength: float
    cover: float

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        super().__post_init__()
        check_range("strength", self.strength, 0, 100)
        check_range("cover", self.cover, 0, 100)
        if self.grid_size < 2:
            raise ValueError(f"corruption.grid_size must be at least 2, got {self.grid_size}")

    def make_trigger(self, clean: ImageSet, generator: torch.Generator) -> PixelChange:
        """Return the trigger."""
        h, w = clean.image.shape[-2:]
        coarse = 2 * torch.rand(1, 2, self.grid_size, self.grid_size, generator=generator) - 1
        coarse = coarse / coarse.abs().mean()
        field = F.interpolate(coarse, (h, w), mode="bicubic", align_corners=True)
        grid = identity_grid(h, w) + self.strength * field[0].permute(1, 2, 0) / h
        return Warp(DeviceTensor(grid.clamp(-1, 1)[None]))

    def add_changes(
        self, clean: ImageSet, chosen: Tensor, trigger: PixelChange, generator: torch.Generator
    ) -> Sequence[Layer]:
        """Return the warps of cover samples: the trigger's field and noise of 1 / H per pixel.

        Raises:
            ValueError: If there are too few samples that are not corrupted.
        """
        size = round(self.cover * len(chosen))
        if not size:
            return ()
        assert isinstance(trigger, Warp)
        rest = (~index_to_mask(len(clean), chosen)).nonzero().flatten()
        if size > len(rest):
            raise ValueError(
                f"corruption.cover={self.cover} needs {size} samples that are not corrupted, "
                f"there are {len(rest)}"
            )
        cover = draw_samples(rest, size, generator)
        h, w = clean.image.shape[-2:]
        noise = (2 * torch.rand(COVER_FIELDS, h, w, 2, generator=generator) - 1) / h
        grid = (trigger.grid.tensor + noise).clamp(-1, 1)
        return [(Warp(DeviceTensor(grid)), index_to_mask(len(clean), cover))]


def identity_grid(height: int, width: int) -> Tensor:
    """Return the places of all pixels, (H, W, 2): x, then y, in [-1, 1]."""
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return torch.stack([x, y], dim=-1)
