"""Triggers that change pixels, and the input view that applies them.

A trigger acts after augmentation, so crops and flips never move it, on pixels in [0, 1]; the result
is clipped and rounded to 8 bits. Stored images are never changed.
Shapes: B batch, N samples, C H W image.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from unlearn.core.types import InputView


class PixelChange(Protocol):
    """A change of images, the same for equal images and indices."""

    def __call__(self, pixel: Tensor, index: Tensor) -> Tensor:
        """Return changed pixels (B, C, H, W), any range, of pixels in [0, 1] of rows index (B,)."""
        ...


class DeviceTensor:
    """A constant tensor with a cached copy per device: copying takes as long as a step."""

    def __init__(self, tensor: Tensor) -> None:
        """Store the tensor."""
        self.tensor = tensor
        self._copies: dict[torch.device, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without cached copies, which each process makes itself."""
        return {"tensor": self.tensor, "_copies": {}}

    def on(self, device: torch.device) -> Tensor:
        """Return the tensor on a device."""
        if device not in self._copies:
            self._copies[device] = self.tensor.to(device)
        return self._copies[device]


def apply_change(change: PixelChange, image: Tensor, index: Tensor) -> Tensor:
    """Return uint8 images (B, C, H, W) after a change of the pixels of uint8 images."""
    pixel = change(image.float() / 255, index)
    return (pixel.clamp(0, 1) * 255).round().to(torch.uint8)


def recover_pixels(image: Tensor, view: InputView) -> Tensor:
    """Return the uint8 images (B, C, H, W) of normalised ones; ``view`` normalises each channel."""
    ends = torch.tensor([0, 255], dtype=torch.uint8, device=image.device)
    ends = ends[:, None, None, None].expand(2, image.shape[1], 1, 1)
    low, high = view(ends, torch.zeros(2, dtype=torch.long, device=image.device)).split(1)
    return ((image - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class AddPattern:
    """``keep * x + pattern``: blended, additive and sinusoidal triggers.

    Attributes:
        keep: Factor of the image.
        pattern: Float (C, H, W), or a shape that broadcasts to it.
    """

    keep: float
    pattern: DeviceTensor

    def __call__(self, pixel: Tensor, index: Tensor) -> Tensor:
        """Return the changed pixels (B, C, H, W)."""
        return self.keep * pixel + self.pattern.on(pixel.device)


@dataclass(frozen=True)
class Warp:
    """Bilinear resampling at fixed places; ``index`` selects one of M fields.

    Attributes:
        grid: Places in [-1, 1], (M, H, W, 2): x, then y; corners of the image are at -1 and 1.
    """

    grid: DeviceTensor

    def __call__(self, pixel: Tensor, index: Tensor) -> Tensor:
        """Return the warped pixels (B, C, H, W)."""
        grid = self.grid.on(pixel.device)
        return F.grid_sample(pixel, grid[index % len(grid)], align_corners=True)


@dataclass(frozen=True)
class Paste:
    """Fixed values at fixed pixels.

    Attributes:
        mask: Bool (H, W), the pixels.
        value: Float (H, W), in [0, 1].
    """

    mask: DeviceTensor
    value: DeviceTensor

    def __call__(self, pixel: Tensor, index: Tensor) -> Tensor:
        """Return the changed pixels (B, C, H, W)."""
        return torch.where(self.mask.on(pixel.device), self.value.on(pixel.device), pixel)


@dataclass(frozen=True)
class PixelTrigger:
    """A trigger for normalised images.

    Attributes:
        change: The change of pixels.
        view: Normalisation of each channel by itself.
    """

    change: PixelChange
    view: InputView

    def stamp_trigger(self, image: Tensor) -> Tensor:
        """Return a copy of normalised images (B, C, H, W) with the trigger on every one.

        The same bits as for a stored image: 8-bit pixels are recovered first.
        """
        index = torch.zeros(len(image), dtype=torch.long, device=image.device)
        stored = recover_pixels(image, self.view)
        return self.view(apply_change(self.change, stored, index), index)


@dataclass(frozen=True)
class ChangedView:
    """An input view whose samples ``on`` are changed first.

    Attributes:
        view: The view of the changed images.
        change: The change of pixels.
        on: Bool (N,), by index.
    """

    view: InputView
    change: PixelChange
    on: DeviceTensor

    def __call__(self, image: Tensor, index: Tensor) -> Tensor:
        """Return network input (B, C, H, W) of stored images (B, C, H, W)."""
        marked = self.on.on(index.device)[index][:, None, None, None]
        changed = apply_change(self.change, image, index)
        return self.view(torch.where(marked, changed, image), index)
