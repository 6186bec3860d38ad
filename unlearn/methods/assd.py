"""Adaptive selective synaptic dampening, ASSD (Schoepf et al., arXiv 2402.10098). Re-implemented."""

from torch import nn

from unlearn.core.types import Request
from unlearn.methods.components.dampening import Dampening, dampen, share_of_forget
from unlearn.methods.components.importance import kept_percent, percentile, sorted_ratios


class ASSD(Dampening):
    """SSD that takes alpha from the size of the forget set: nothing is left to tune."""

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        """Dampen all but the P-th percentile of weights, P = 100 - ln(1 + 100 phi)."""
        forget, retain = self.importances(model, request)
        percent = kept_percent(share_of_forget(request))
        alpha = percentile(sorted_ratios(forget, retain), percent)
        fraction = dampen(model, forget, retain, alpha=alpha, lambda_=1.0)
        self.notes |= {"alpha": alpha, "dampened_fraction": fraction}
        return model
