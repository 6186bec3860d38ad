"""Backdoor poisoning with a square trigger (BadNets): high statistical regularity.

Source: "Corrective Machine Unlearning" (arXiv 2402.14015), REM (arXiv 2505.17730). Re-implemented.
The trigger is stamped after augmentation and normalisation, so crops and flips never move it.
Shapes: B batch, N samples, C H W image.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn.core.stored_images import get_channel_maxima
from unlearn.core.types import ImageSet, InputView
from unlearn.data.corruption.base import Corruption, draw_samples, index_to_mask
from unlearn.data.task import Truth

CORNERS = {
    "top_left": (0, 0),
    "top_right": (0, 1),
    "bottom_left": (1, 0),
    "bottom_right": (1, 1),
}


@dataclass(frozen=True)
class SquareTrigger:
    """A square of one constant in one corner of normalised images.

    Attributes:
        size: Side in pixels.
        corner: One of ``CORNERS``.
        value: Written to all channels, in normalised units.
    """

    size: int
    corner: str
    value: float

    def select_corner(self, image: Tensor) -> Tensor:
        """Return the view (B, C, size, size) of the corner of images (B, C, H, W)."""
        down, right = CORNERS[self.corner]
        h, w = image.shape[-2:]
        top, left = down * (h - self.size), right * (w - self.size)
        return image[..., top : top + self.size, left : left + self.size]

    def stamp_trigger(self, image: Tensor) -> Tensor:
        """Return a copy of images (B, C, H, W) with the trigger on every one."""
        out = image.clone()
        self.select_corner(out).fill_(self.value)
        return out


@dataclass(frozen=True)
class StampedView:
    """An input view whose samples ``on`` bool (N,) carry the trigger."""

    view: InputView
    trigger: SquareTrigger
    on: Tensor
    _copies: dict[torch.device, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without cached copies, which each process makes itself."""
        return {**vars(self), "_copies": {}}

    def _trigger_marks(self, device: torch.device) -> Tensor:
        if device not in self._copies:
            self._copies[device] = self.on.to(device)
        return self._copies[device]

    def __call__(self, image: Tensor, index: Tensor) -> Tensor:
        """Return normalised images (B, C, H, W), stamped where the sample carries the trigger."""
        out = self.view(image, index)
        region = self.trigger.select_corner(out)
        marked = self._trigger_marks(index.device)[index][:, None, None, None]
        region.copy_(region.masked_fill(marked, self.trigger.value))
        return out


@dataclass(frozen=True, kw_only=True)
class Poison(Corruption):
    """Stamp a trigger on randomly chosen samples and label them as the target class.

    Attributes:
        target_class: Label of triggered images.
        trigger_size: Side of the square in pixels.
        corner: Corner of the image.
        value: Normalised value of its pixels; None takes the largest of all training images.
        exclude_target_class: Poison only samples of other classes. The benchmark does not, hence a
            fully backdoored model still heals about 1/K of the samples.
    """

    target_class: int
    trigger_size: int
    corner: str
    value: float | None
    exclude_target_class: bool

    regularity: ClassVar[str | None] = "high"

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        if self.corner not in CORNERS:
            raise ValueError(
                f"corruption.corner must be one of {', '.join(CORNERS)}, got {self.corner}"
            )
        if self.trigger_size < 1:
            raise ValueError(f"corruption.trigger_size must be at least 1, got {self.trigger_size}")

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with ``count`` poisoned samples.

        Raises:
            ValueError: If the target class does not exist or the trigger exceeds the image.
        """
        if not 0 <= self.target_class < clean.num_classes:
            raise ValueError(
                f"corruption.target_class must be in 0..{clean.num_classes - 1}, "
                f"got {self.target_class}"
            )
        if self.trigger_size > min(clean.image.shape[-2:]):
            raise ValueError(
                f"corruption.trigger_size must be at most {min(clean.image.shape[-2:])}, "
                f"got {self.trigger_size}"
            )
        pool = torch.arange(len(clean))
        if self.exclude_target_class:
            pool = pool[clean.label != self.target_class]
        chosen = draw_samples(pool, count, torch.Generator().manual_seed(seed))
        on = index_to_mask(len(clean), chosen)
        trigger = SquareTrigger(self.trigger_size, self.corner, self._trigger_value(clean))
        label = clean.label.clone()
        label[chosen] = self.target_class
        truth = Truth(
            clean_label=clean.label,
            corrupted=on,
            trigger=trigger,
            target_class=self.target_class,
            clean_view=clean.view,
        )
        return replace(clean, label=label, view=StampedView(clean.view, trigger, on)), truth

    def _trigger_value(self, clean: ImageSet) -> float:
        if self.value is not None:
            return self.value
        brightest = get_channel_maxima(clean.image)[None, :, None, None]
        return clean.view(brightest, clean.index[:1]).max().item()
