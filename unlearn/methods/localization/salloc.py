"""SalLoc: the weights with the largest gradient on the forget set (Fan et al., arXiv 2310.12508).

Re-implemented; the localization of SalUn, called SalLoc in arXiv 2412.02432. Per channel it is a
cell of that paper's table 1. Differs: batches count by their size, an incomplete one too.
"""

from typing import Any

from torch import Tensor, nn

from unlearn.core.types import ImageSet, Request
from unlearn.methods.localization.base import Ranked, one_of
from unlearn.methods.localization.mean_gradients import (
    ACCUMULATE,
    DATA,
    Change,
    changed,
    mean_gradient,
    part_of,
)


def saliency(gradient: Tensor) -> Tensor:
    """Return |g|, for a gradient that was summed with its signs."""
    return gradient.abs()


class SalLoc(Ranked):
    """Rank by the size of the gradient."""

    def __init__(
        self,
        *,
        data: str,
        batch_size: int,
        accumulate: str,
        drop_last: bool,
        augment: Change | None,
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
        one_of("data", data, DATA)
        one_of("accumulate", accumulate, ACCUMULATE)
        self.data = data
        self.augment, self.seed = augment, seed
        self.options = {
            "batch_size": batch_size,
            "accumulate": accumulate,
            "drop_last": drop_last,
        }

    def gradient(self, model: nn.Module, data: ImageSet) -> dict[str, Tensor]:
        """Return the mean gradient on a set."""
        if self.augment is not None:
            data = changed(data, self.augment, self.seed)
        return mean_gradient(model, data, **self.options)  # type: ignore[arg-type]

    def scores(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return |g| of every entry."""
        slope = self.gradient(model, part_of(request, self.data))
        return {name: saliency(g) for name, g in slope.items()}
