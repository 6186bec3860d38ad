"""Chance within layers: as much of every tensor as another strategy takes (arXiv 2412.02432, table 3).

Keeps the shares of the layers and randomises which channels. Differs: of 0-dimensional parameters
the other strategy's choice is kept.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.base import Localizer, check_option


def draw_matched_mask(
    reference: Mapping[str, Tensor], granularity: str, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return a random mask with as many entries of every tensor as ``reference`` has.

    Args:
        reference: Bool tensors by name.
        granularity: "channel" draws whole slices of dimension 0 until there are as many entries or,
            by less than a slice, more; "parameter" draws scalars.
        generator: Draws.
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
    """Ask another strategy how much of every tensor, and choose which by chance."""

    needs_budget = True

    def __init__(self, *, reference: Localizer, granularity: str, seed: int) -> None:
        """Keep the options.

        Args:
            reference: The other strategy.
            granularity: "channel" or "parameter".
            seed: Seeds the draw.
        """
        check_option("granularity", granularity, ("channel", "parameter"))
        self.reference = reference
        self.granularity = granularity
        self.seed = seed

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return where parameters may move."""
        mask = self.reference(model, request, budget)
        return draw_matched_mask(mask, self.granularity, torch.Generator().manual_seed(self.seed))
