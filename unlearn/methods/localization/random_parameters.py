"""Randomly selected parameters: the control of every localization (arXiv 2412.02432)."""

from typing import Any

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.base import RankedLocalizer
from unlearn.models.layers import get_trainable_parameters


class RandomParameters(RankedLocalizer):
    """Rank by uniform random numbers."""

    def __init__(self, *, seed: int, **ranking: Any) -> None:
        """Store the seed; see ``Ranking`` for the rest."""
        super().__init__(**ranking)
        self.seed = seed

    def compute_scores(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return uniform random numbers in [0, 1)."""
        generator = torch.Generator().manual_seed(self.seed)
        return {
            n: torch.rand(p.shape, generator=generator, dtype=torch.float64)
            for n, p in get_trainable_parameters(model).items()
        }
