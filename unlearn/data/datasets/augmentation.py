"""Augmentation of whole batches on their device. Shapes: B batch, C H W image."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Zero-pad and crop, flip and cut out, drawn independently per sample.

    Attributes:
        crop_padding: Pixels of padding before the random crop; 0: no crop.
        flip_rate: Probability of a horizontal flip, in [0, 1].
        cutout: Side of a square set to zero, in pixels; 0: none (arXiv 1708.04552).
    """

    crop_padding: int
    flip_rate: float
    cutout: int

    def __post_init__(self) -> None:
        """Check all three."""
        if self.crop_padding < 0 or self.cutout < 0:
            raise ValueError(
                f"augment.crop_padding and augment.cutout must be at least 0, "
                f"got {self.crop_padding} and {self.cutout}"
            )
        if not 0 <= self.flip_rate <= 1:
            raise ValueError(f"augment.flip_rate must be in [0, 1], got {self.flip_rate}")

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented uint8 images (B, C, H, W); the input itself if all is off."""
        b = len(image)
        device = image.device
        if self.crop_padding or self.flip_rate:
            image = self._crop_and_flip(image, generator)
        if self.cutout:
            h, w = image.shape[-2:]
            top = torch.randint(0, h, (b, 1), generator=generator, device=device)
            left = torch.randint(0, w, (b, 1), generator=generator, device=device)
            rows = torch.arange(h, device=device) - top + self.cutout // 2
            columns = torch.arange(w, device=device) - left + self.cutout // 2
            inside_y = (rows >= 0) & (rows < self.cutout)
            inside_x = (columns >= 0) & (columns < self.cutout)
            image = image.masked_fill((inside_y[:, :, None] & inside_x[:, None])[:, None], 0)
        return image

    def _crop_and_flip(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and flip in one gather by row and column indices per sample."""
        b, c, h, w = image.shape
        device, pad = image.device, self.crop_padding
        top = torch.randint(0, 2 * pad + 1, (b, 1), generator=generator, device=device)
        left = torch.randint(0, 2 * pad + 1, (b, 1), generator=generator, device=device)
        flip = torch.rand(b, 1, generator=generator, device=device) < self.flip_rate
        columns = torch.arange(w, device=device).expand(b, w)
        columns = torch.where(flip, w - 1 - columns, columns) + left
        rows = torch.arange(h, device=device) + top
        padded = F.pad(image, (pad, pad, pad, pad))
        flat = rows[:, :, None] * (w + 2 * pad) + columns[:, None, :]
        flat = flat.view(b, 1, h * w).expand(b, c, h * w)
        return padded.flatten(2).gather(2, flat).view(b, c, h, w)
