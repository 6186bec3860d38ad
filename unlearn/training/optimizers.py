"""Additional optimizers, and fast steps for those of torch."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
Steps = TypeVar("Steps", bound=torch.optim.Optimizer)


def use_fast_step(optimizer: Steps) -> Steps:
    """Enable the fast implementation of the optimizer's step, unless one is set; return it.

    On a GPU that is ``fused``. On a CPU it is ``foreach`` for SGD, which is bit-identical to the
    loop; a fused step is not.
    """
    for group in filter(lambda group: group["params"], optimizer.param_groups):
        told = group.get("foreach") is not None or group.get("fused") is not None
        gpu = group["params"][0].device.type == "cuda"
        if not told and gpu and type(optimizer) in FUSED:
            group["fused"] = True
        elif not told and not gpu and type(optimizer) is torch.optim.SGD:
            group["foreach"] = True
    return optimizer


class NormalizedSGD(torch.optim.Optimizer):
    """Step along the gradient scaled to unit norm over all parameters together.

    Gradient ascent from a saturated softmax has vanishing gradients at first and exploding ones
    later; steps of fixed length avoid both.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        """Initialise the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Step length, the Euclidean norm over all parameters, > 0.
            momentum: Fraction of the previous step that is added, in [0, 1).
            weight_decay: L2 weight decay, added after normalisation, >= 0.

        Raises:
            ValueError: If ``lr`` is not positive.
        """
        if lr <= 0:
            raise ValueError(f"lr must be above 0, got {lr}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Perform a step; without gradients nothing changes."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        if not moving:
            return loss
        norm = torch.nn.utils.get_total_norm([p.grad for p in moving])
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                step = p.grad / norm.clamp_min(1e-30) + group["weight_decay"] * p
                if group["momentum"]:
                    state = self.state[p]
                    step = step + group["momentum"] * state.get("last", 0)
                    state["last"] = step
                p.sub_(group["lr"] * step)
        return loss
