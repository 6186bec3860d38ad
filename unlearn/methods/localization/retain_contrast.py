"""Weights more important for the forget than for the retain set; ours, after arXiv 2412.02432."""

from typing import Any

from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.salloc import SalLoc
from unlearn.methods.localization.weighted_gradient import weighted_saliency
from unlearn.models.layers import get_trainable_parameters


def compute_score_ratio(forget: Tensor, retain: Tensor, epsilon: float) -> Tensor:
    """Return forget / (retain + epsilon), for non-negative scores of the same shape."""
    return forget / (retain + epsilon)


class RetainContrast(SalLoc):
    """Rank by the ratio of the weighted gradients on both sets."""

    def __init__(self, *, epsilon: float, **gradients: Any) -> None:
        """Store epsilon, above 0, which bounds the ratio; see ``SalLoc`` (``data`` is not used).

        Raises:
            ValueError: If epsilon is not positive.
        """
        super().__init__(**gradients)
        if epsilon <= 0:
            raise ValueError(f"localization.epsilon must be above 0, got {epsilon}")
        self.epsilon = epsilon

    def compute_scores(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return the ratio of the weighted gradients of every entry."""
        forget = self.compute_gradient(model, request.forget)
        retain = self.compute_gradient(model, request.retain)
        out = {}
        for name, weight in get_trainable_parameters(model).items():
            one, two = (weighted_saliency(weight.detach(), g[name]) for g in (forget, retain))
            out[name] = compute_score_ratio(one, two, self.epsilon)
        return out
