"""SalLoc: the weights with the largest gradient on the forget set (Fan et al., arXiv 2310.12508).

Re-implemented; the localization of SalUn, called SalLoc in arXiv 2412.02432; with channels it is in
table 1 of that paper. Differs: batches are weighted by size, including an incomplete one.
"""

from typing import Any

from torch import Tensor, nn

from unlearn.core.types import ImageSet, Request
from unlearn.methods.localization.base import RankedLocalizer, check_option
from unlearn.methods.localization.mean_gradients import (
    ACCUMULATE_MODES,
    DATA_PARTS,
    ImageAugmentation,
    augment_images,
    compute_mean_gradient,
    get_image_set,
)


def gradient_saliency(gradient: Tensor) -> Tensor:
    """Return |g| of a signed sum of gradients."""
    return gradient.abs()


class SalLoc(RankedLocalizer):
    """Rank by the absolute gradient."""

    def __init__(
        self,
        *,
        data: str,
        batch_size: int,
        accumulate: str,
        drop_last: bool,
        augment: ImageAugmentation | None,
        seed: int,
        **ranking: Any,
    ) -> None:
        """Store the options.

        Args:
            data: Set the gradient is computed on: "forget", "retain" or "all".
            batch_size: Images per pass; does not affect the result.
            accumulate: "signed", or "absolute" to sum the absolute values per batch.
            drop_last: Drop an incomplete last batch.
            augment: Augmentation of the images; None: none.
            seed: Seed of the augmentation.
            ranking: See ``Ranking``.
        """
        super().__init__(**ranking)
        check_option("data", data, DATA_PARTS)
        check_option("accumulate", accumulate, ACCUMULATE_MODES)
        self.data = data
        self.augment, self.seed = augment, seed
        self.options = {
            "batch_size": batch_size,
            "accumulate": accumulate,
            "drop_last": drop_last,
        }

    def compute_gradient(self, model: nn.Module, data: ImageSet) -> dict[str, Tensor]:
        """Return the mean gradient on a set."""
        if self.augment is not None:
            data = augment_images(data, self.augment, self.seed)
        return compute_mean_gradient(model, data, **self.options)  # type: ignore[arg-type]

    def compute_scores(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return |g| of every entry."""
        slope = self.compute_gradient(model, get_image_set(request, self.data))
        return {name: gradient_saliency(g) for name, g in slope.items()}
