"""Weighted gradients: |weight x gradient| on the forget set (arXiv 2412.02432, the localization of DEL).

A first-order estimate of how much the loss changes if the weight is set to zero. Re-implemented; on
all data (``data: all``) it is the paper's control that ignores the forget set (table 4).
"""

from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.mean_gradients import get_image_set
from unlearn.methods.localization.salloc import SalLoc
from unlearn.models.layers import get_trainable_parameters


def weighted_saliency(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return |weight * gradient|, elementwise."""
    return (weight * gradient).abs()


class WeightedGradient(SalLoc):
    """Rank by weight times gradient, of scalars or of output channels."""

    def compute_scores(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return |weight * g| of every entry."""
        slope = self.compute_gradient(model, get_image_set(request, self.data))
        weight = get_trainable_parameters(model)
        return {n: weighted_saliency(weight[n].detach(), g) for n, g in slope.items()}
