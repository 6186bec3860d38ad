"""Normalisation: stored uint8 images to network input. Shapes: B batch, C H W image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalize:
    """Scale to [0, 1], subtract the mean and divide by the deviation of each channel.

    Attributes:
        mean: One value per channel, of images in [0, 1].
        std: One value per channel, above 0.
    """

    mean: Sequence[float]
    std: Sequence[float]
    _constants: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        """Check both and convert them to tuples, so that equal views have equal hashes."""
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(
                f"dataset.mean and dataset.std need one value per channel, "
                f"got {list(self.mean)} and {list(self.std)}"
            )
        if not all(math.isfinite(m) for m in self.mean):
            raise ValueError(f"dataset.mean must be finite, got {list(self.mean)}")
        if not all(math.isfinite(s) and s > 0 for s in self.std):
            raise ValueError(f"dataset.std must be finite and above 0, got {list(self.std)}")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without cached copies, which each process makes itself."""
        return {**vars(self), "_constants": {}}

    def _constants_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._constants:  # cached per device: copying takes as long as a step
            std = torch.tensor(self.std)
            scale = (1 / (255 * std))[:, None, None]
            shift = (-torch.tensor(self.mean) / std)[:, None, None]
            self._constants[device] = (scale.to(device), shift.to(device))
        return self._constants[device]

    def __call__(self, image: Tensor, index: Tensor) -> Tensor:
        """Return a new float32 tensor (B, C, H, W) for uint8 images (B, C, H, W)."""
        if image.shape[1] != len(self.mean):
            raise ValueError(
                f"images have {image.shape[1]} channels, dataset.mean has {len(self.mean)}"
            )
        scale, shift = self._constants_on(image.device)
        out = image.to(torch.float32, copy=True)
        return torch.addcmul(shift, out, scale, out=out)  # in place: a batch may take 100 MB
