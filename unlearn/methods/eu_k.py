"""EU-k: retrain the last k layers from new weights (Goel et al., arXiv 2201.06640). Re-implemented."""

from typing import Any

import torch
from torch import nn

from unlearn.core.types import Request
from unlearn.methods.cf_k import CFk, split_last_layers
from unlearn.models.surgery import draw_unrelated_network


class EUk(CFk):
    """Reinitialise the last k layers and train them on the retain set; the others are frozen."""

    def __init__(self, *, seed: int, **recipe: Any) -> None:
        """Store the seed of the new weights; see ``CFk`` for the rest."""
        super().__init__(**recipe)
        self.seed = seed

    @torch.no_grad()
    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the model with new weights and statistics in the last k layers."""
        model = super().prepare(model, request)
        _, source = split_last_layers(draw_unrelated_network(model, self.seed), self.k)
        for old, new in zip(self.moving, source, strict=True):
            values = [*new.parameters(recurse=False), *new.buffers(recurse=False)]
            places = [*old.parameters(recurse=False), *old.buffers(recurse=False)]
            for place, value in zip(places, values, strict=True):
                place.copy_(value)
        return model
