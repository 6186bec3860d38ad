"""Augmentation of whole batches on their device. Shapes: B batch, C H W image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GATHERED = 2**20
"""Pixels that are gathered at once: their indices take 8 bytes each."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Crop, flip, change colours and cut out, drawn independently per sample.

    Attributes:
        crop_padding: Pixels of padding before the random crop; 0: no crop.
        flip_rate: Probability of a horizontal flip, in [0, 1].
        cutout: Side of a square set to zero, in pixels; 0: none (arXiv 1708.04552).
        resized_crop: Smallest area of a random crop that is resized to the whole image, as a share
            of the image, with an aspect ratio in [3/4, 4/3] (arXiv 1409.4842); 1: no such crop.
        color_jitter: Largest relative change of brightness, contrast and saturation; 0: none.
    """

    crop_padding: int
    flip_rate: float
    cutout: int
    resized_crop: float = 1.0
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        """Check all three."""
        if self.crop_padding < 0 or self.cutout < 0:
            raise ValueError(
                f"augment.crop_padding and augment.cutout must be at least 0, "
                f"got {self.crop_padding} and {self.cutout}"
            )
        if not 0 <= self.flip_rate <= 1:
            raise ValueError(f"augment.flip_rate must be in [0, 1], got {self.flip_rate}")
        if not 0 < self.resized_crop <= 1 or (self.resized_crop < 1 and self.crop_padding):
            raise ValueError(
                "augment.resized_crop must be in (0, 1], and 1 with augment.crop_padding, "
                f"got {self.resized_crop}"
            )
        if not 0 <= self.color_jitter < 1:
            raise ValueError(f"augment.color_jitter must be in [0, 1), got {self.color_jitter}")

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented uint8 images (B, C, H, W); the input itself if all is off."""
        b = len(image)
        device = image.device
        if self.resized_crop < 1:
            image = self._resize_crops(image, generator)
        elif self.crop_padding or self.flip_rate:
            image = self._crop_and_flip(image, generator)
        if self.color_jitter:
            image = self._jitter_colors(image, generator)
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
        b, (h, w) = len(image), image.shape[-2:]
        device, pad = image.device, self.crop_padding
        top = torch.randint(0, 2 * pad + 1, (b, 1), generator=generator, device=device)
        left = torch.randint(0, 2 * pad + 1, (b, 1), generator=generator, device=device)
        flip = torch.rand(b, 1, generator=generator, device=device) < self.flip_rate
        columns = torch.arange(w, device=device).expand(b, w)
        columns = torch.where(flip, w - 1 - columns, columns) + left
        rows = torch.arange(h, device=device) + top
        step = max(1, GATHERED // (h * w))
        if b <= step:
            return self._gather_pixels(image, rows, columns)
        out = torch.empty_like(image, memory_format=torch.contiguous_format)
        parts = (t.split(step) for t in (out, image, rows, columns))
        for place, *part in zip(*parts, strict=True):
            place.copy_(self._gather_pixels(*part))
        return out

    def _gather_pixels(self, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return pixels of padded images at rows (b, H) and columns (b, W)."""
        b, c, h, w = image.shape
        pad = self.crop_padding
        padded = F.pad(image, (pad, pad, pad, pad))
        flat = rows[:, :, None] * (w + 2 * pad) + columns[:, None, :]
        flat = flat.view(b, 1, h * w).expand(b, c, h * w)
        return padded.flatten(2).gather(2, flat).view(b, c, h, w)

    def _resize_crops(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Cut a random part out of each image, flip it, and resize it to the whole image.

        torchvision's transforms draw one crop for a whole batch; its parts are sampled here at once.
        """
        b, device = len(image), image.device
        draw = torch.rand(5, b, generator=generator, device=device)
        area = self.resized_crop + (1 - self.resized_crop) * draw[0]
        ratio = torch.exp((2 * draw[1] - 1) * math.log(4 / 3))
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        sign = torch.where(draw[4] < self.flip_rate, -1.0, 1.0)
        theta = torch.zeros(b, 2, 3, device=device)  # coordinates of the whole image are in [-1, 1]
        theta[:, 0, 0], theta[:, 1, 1] = sign * width, height
        theta[:, 0, 2] = (2 * draw[2] - 1) * (1 - width)
        theta[:, 1, 2] = (2 * draw[3] - 1) * (1 - height)
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        parts = F.grid_sample(image.float(), grid, padding_mode="border", align_corners=False)
        return parts.round_().clamp_(0, 255).to(torch.uint8)

    def _jitter_colors(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Change brightness, contrast and, of colour images, saturation, in this order.

        torchvision's transforms draw one change for a whole batch.
        """
        draw = torch.rand(3, len(image), 1, 1, 1, generator=generator, device=image.device)
        brightness, contrast, saturation = 1 + self.color_jitter * (2 * draw - 1)
        out = (image.float() * brightness).clamp_(0, 255)
        mean = _to_grey(out).mean((1, 2, 3), keepdim=True)
        out = (mean + contrast * (out - mean)).clamp_(0, 255)
        grey = _to_grey(out)
        return (grey + saturation * (out - grey)).round_().clamp_(0, 255).to(torch.uint8)


def _to_grey(image: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) of colour images, and other images unchanged in the mean."""
    if image.shape[1] != 3:
        return image.mean(1, keepdim=True)
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    return rgb_to_grayscale(image)
