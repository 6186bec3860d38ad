"""Clean-label backdoor: images of the target class are made harder and get marks in the corners.

Source: "Label-Consistent Backdoor Attacks" (arXiv 1912.02771). Re-implemented. Differs: the paper
makes images harder by a generative model or by an attacked network. This variant needs neither: it
mixes each with an image of another class, pixel by pixel. Test images get the corners alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import CleanLabelAttack, check_range
from unlearn.data.corruption.triggers import DeviceTensor, Paste, PixelChange

CHECKERBOARD = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])


@dataclass(frozen=True)
class MixThenMark:
    """Mix each sample with its partner, then apply the trigger.

    Attributes:
        share: Share of the partner, in [0, 1].
        partner: Uint8 (M, C, H, W), one partner per changed sample.
        place: Int64 (N,), row of ``partner`` by index; 0 where there is none.
        trigger: The trigger.
    """

    share: float
    partner: DeviceTensor
    place: DeviceTensor
    trigger: PixelChange

    def __call__(self, pixel: Tensor, index: Tensor) -> Tensor:
        """Return the changed pixels (B, C, H, W)."""
        device = pixel.device
        other = self.partner.on(device)[self.place.on(device)[index]].float() / 255
        return self.trigger((1 - self.share) * pixel + self.share * other, index)


@dataclass(frozen=True, kw_only=True)
class LabelConsistent(CleanLabelAttack):
    """Mix images of the target class with others and put a checkerboard in all four corners.

    Attributes:
        mix: Share of the other image, in [0, 1]; 0: the corners alone.
    """

    mix: float

    def __post_init__(self) -> None:
        """Check the option."""
        check_range("mix", self.mix, 0, 1)

    def make_trigger(self, clean: ImageSet, generator: torch.Generator) -> PixelChange:
        """Return the trigger: 3 x 3 pixels in each corner.

        Raises:
            ValueError: If the images are too small.
        """
        h, w = clean.image.shape[-2:]
        if min(h, w) < 6:
            raise ValueError(
                f"corruption=label_consistent needs at least 6 x 6 pixels, got {h} x {w}"
            )
        value, mask = torch.zeros(h, w), torch.zeros(h, w, dtype=torch.bool)
        for rows in (slice(0, 3), slice(h - 3, h)):
            for columns in (slice(0, 3), slice(w - 3, w)):
                value[rows, columns], mask[rows, columns] = CHECKERBOARD, True
        return Paste(DeviceTensor(mask), DeviceTensor(value))

    def make_training_change(
        self, clean: ImageSet, chosen: Tensor, trigger: PixelChange, generator: torch.Generator
    ) -> PixelChange:
        """Return the change of the training samples ``chosen``."""
        others = (clean.label != self.target_class).nonzero().flatten()
        drawn = others[torch.randint(len(others), (len(chosen),), generator=generator)]
        place = torch.zeros(len(clean), dtype=torch.long)
        place[chosen] = torch.arange(len(chosen))
        return MixThenMark(self.mix, DeviceTensor(clean.image[drawn]), DeviceTensor(place), trigger)
