"""No localization: everything may move, the full-parameter version of every method."""

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.models.layers import get_trainable_parameters


class Everything:
    """All ones; a budget below 1 is refused, since it is not met."""

    needs_budget = False

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return where parameters may move."""
        return {
            n: torch.ones(p.shape, dtype=torch.bool)
            for n, p in get_trainable_parameters(model).items()
        }
