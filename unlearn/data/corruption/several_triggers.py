"""A backdoor with several triggers: each corrupted sample carries one of them, all have one target.

Ours, after attacks by several parties at once. Shapes: N samples, B batch, C H W image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import DirtyLabelAttack
from unlearn.data.corruption.triggers import DeviceTensor, PixelChange


@dataclass(frozen=True)
class ChangeByContent:
    """One of several changes per image, chosen by the sum of its pixels: the same for equal images."""

    changes: Sequence[PixelChange]

    def __call__(self, pixel: Tensor, index: Tensor) -> Tensor:
        """Return the changed pixels (B, C, H, W)."""
        which = (pixel * 255).round().long().sum((1, 2, 3)) % len(self.changes)
        return _apply_chosen(self.changes, which, pixel, index)


@dataclass(frozen=True)
class ChangeByIndex:
    """One of several changes per training sample, the same under every augmentation.

    Attributes:
        changes: The changes.
        which: Number of the change by index, int64 (N,).
    """

    changes: Sequence[PixelChange]
    which: DeviceTensor

    def __call__(self, pixel: Tensor, index: Tensor) -> Tensor:
        """Return the changed pixels (B, C, H, W)."""
        return _apply_chosen(self.changes, self.which.on(index.device)[index], pixel, index)


def _apply_chosen(
    changes: Sequence[PixelChange], which: Tensor, pixel: Tensor, index: Tensor
) -> Tensor:
    out = pixel
    for number, change in enumerate(changes):
        out = torch.where((which == number)[:, None, None, None], change(pixel, index), out)
    return out


@dataclass(frozen=True, kw_only=True)
class SeveralTriggers(DirtyLabelAttack):
    """Put one of several triggers on each chosen sample, in equal parts.

    A test image gets one of them by its content, so that attack success is the mean over triggers.

    Attributes:
        triggers: Attacks by name, of which only the triggers are used; at least two.
    """

    triggers: Mapping[str, DirtyLabelAttack]

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        super().__post_init__()
        if len(self.triggers) < 2:
            raise ValueError(
                f"corruption.triggers must be two attacks or more, got {list(self.triggers)}"
            )

    def make_trigger(self, clean: ImageSet, generator: torch.Generator) -> PixelChange:
        """Return the change that chooses a trigger by content."""
        return ChangeByContent([a.make_trigger(clean, generator) for a in self.triggers.values()])

    def make_training_change(
        self, clean: ImageSet, chosen: Tensor, trigger: PixelChange
    ) -> PixelChange:
        """Return the change of the samples ``chosen``: the triggers in turn."""
        assert isinstance(trigger, ChangeByContent)
        which = torch.zeros(len(clean), dtype=torch.long)
        which[chosen] = torch.arange(len(chosen)) % len(self.triggers)
        return ChangeByIndex(trigger.changes, DeviceTensor(which))
