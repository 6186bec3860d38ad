"""No localization: all parameters are trained."""

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.models.layers import get_trainable_parameters


class Everything:
    """Select all parameters; a budget below 1 is an error, since it is exceeded."""

    needs_budget = False

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return a mask of all True."""
        return {
            n: torch.ones(p.shape, dtype=torch.bool)
            for n, p in get_trainable_parameters(model).items()
        }
