"""Adaptive selective synaptic dampening, ASSD (Schoepf et al., arXiv 2402.10098). Re-implemented."""

from torch import nn

from unlearn.core.types import Request
from unlearn.methods.components.dampening import Dampening, compute_forget_share, dampen_model
from unlearn.methods.components.importance import (
    compute_sorted_ratios,
    compute_undampened_percentile,
    percentile,
)


class ASSD(Dampening):
    """SSD with alpha computed from the size of the forget set."""

    def edit_model(self, model: nn.Module, request: Request) -> nn.Module:
        """Dampen all but the P-th percentile of weights, P = 100 - ln(1 + 100 phi)."""
        forget, retain = self.compute_importances(model, request)
        percent = compute_undampened_percentile(compute_forget_share(request))
        alpha = percentile(compute_sorted_ratios(forget, retain), percent)
        fraction = dampen_model(model, forget, retain, alpha=alpha, lambda_=1.0)
        self.notes |= {"alpha": alpha, "dampened_fraction": fraction}
        return model
