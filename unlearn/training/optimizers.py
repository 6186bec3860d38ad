"""Optimizers that torch does not have."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class NormalizedSGD(torch.optim.Optimizer):
    """Step along the gradient scaled to unit norm over all parameters together.

    Ascent from a saturated softmax starts with vanishing gradients and then explodes; a step of
    fixed length does neither.
    """

    def __init__(self, params: Iterable[Any], *, lr: float):
        """Keep the step length ``lr`` > 0, in units of the parameters' Euclidean norm."""
        if lr <= 0:
            raise ValueError(f"lr must be above 0, got {lr}")
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Move every parameter; a zero gradient moves nothing."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        if not moving:
            return loss
        norm = torch.nn.utils.get_total_norm([p.grad for p in moving])
        for group in self.param_groups:
            scale = group["lr"] / norm.clamp_min(1e-30)
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad * -scale)
        return loss
