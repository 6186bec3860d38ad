"""SalLoc: the weights with the largest gradient on the forget set (Fan et al., arXiv 2310.12508).

Re-implemented; the localization of SalUn, called SalLoc in arXiv 2412.02432. Per channel it is a
cell of that paper's table 1. Differs: batches count by their size, an incomplete one too.
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
    """Return |g|, for a gradient that was summed with its signs."""
    return gradient.abs()


class SalLoc(RankedLocalizer):
    """Rank by the size of the gradient."""

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
        """Keep the options; see ``Ranking`` for the rest.

        Args:
            data: "forget", "retain" or "all": what the gradient is taken on.
            batch_size: Images that are looked at together; plays no part in the result.
            accumulate: "signed"; "absolute": sum the batches' absolute values.
            drop_last: Leave out an incomplete last batch.
            augment: Changes of the images; None: as they are.
            seed: Of these changes.
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
