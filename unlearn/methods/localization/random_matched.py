"""Random selection with another strategy's share of each tensor (arXiv 2412.02432, table 3).

Layer shares are kept and channels are randomised. Differs: the other strategy's selection of
0-dimensional parameters is kept.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.base import Localizer, check_option


def draw_matched_mask(
    reference: Mapping[str, Tensor], granularity: str, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return a random mask with as many entries per tensor as ``reference``.

    Args:
        reference: Bool tensors by name.
        granularity: "channel" draws whole slices along dimension 0, rounded up to a whole slice;
            "parameter" draws scalars.
        generator: Random generator.
    """
    out = {}
    for name, mask in reference.items():
        if mask.ndim == 0:
            out[name] = mask.clone()
            continue
        channels = len(mask) if granularity == "channel" else mask.numel()
        size = mask.numel() // channels
        wanted = -(-int(mask.sum()) // size)  # rounded up
        rows = torch.zeros(channels, size, dtype=torch.bool)
        rows[torch.randperm(channels, generator=generator)[:wanted]] = True
        out[name] = rows.view(mask.shape)
    return out


class RandomMatched:
    """Select at random as many entries of each tensor as another strategy."""

    needs_budget = True

    def __init__(self, *, reference: Localizer, granularity: str, seed: int) -> None:
        """Store the options.

        Args:
            reference: The other strategy.
            granularity: "channel" or "parameter".
            seed: Seed of the random selection.
        """
        check_option("granularity", granularity, ("channel", "parameter"))
        self.reference = reference
        self.granularity = granularity
        self.seed = seed

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return the mask, bool by parameter name."""
        mask = self.reference(model, request, budget)
        return draw_matched_mask(mask, self.granularity, torch.Generator().manual_seed(self.seed))
