"""Base of the dampening methods: importances of all weights for the forget and the retain set."""

from typing import ClassVar

import torch
from torch import nn

from unlearn.core.types import Request
from unlearn.methods.components.importance import (
    Importance,
    Measure,
    compute_importance,
    cross_entropy,
    dampen_weight,
)
from unlearn.methods.components.one_shot import OneShot


class Dampening(OneShot):
    """Base class of SSD and its variants.

    Attributes:
        measure: Function whose gradient is the importance.
        power: 2: squared gradients; 1: absolute gradients.
    """

    measure: ClassVar[Measure] = staticmethod(cross_entropy)
    power: ClassVar[int] = 2

    def __init__(self, *, batch_size: int, seed: int) -> None:
        """Store the batching of the images.

        Args:
            batch_size: B; gradients are averaged over a batch before they are squared.
            seed: Seed of the assignment of samples to batches.
        """
        super().__init__(batch_size=batch_size)
        self.seed = seed

    def compute_importances(
        self, model: nn.Module, request: Request
    ) -> tuple[Importance, Importance]:
        """Return the importances for the forget and the retain set; note the number of images."""
        forget, retain = (
            compute_importance(
                model,
                part,
                measure=type(self).measure,
                power=self.power,
                batch_size=self.batch_size,
                seed=self.seed,
            )
            for part in (request.forget, request.retain)
        )
        self.notes["importance_images"] = len(request.forget) + len(request.retain)
        return forget, retain


@torch.no_grad()
def dampen_model(
    model: nn.Module, forget: Importance, retain: Importance, *, alpha: float, lambda_: float
) -> float:
    """Dampen the model's weights in place; return the share of weights selected, in [0, 1]."""
    selected = total = 0
    for name, weight in model.named_parameters():
        total += weight.numel()
        if name in forget:
            f, r = forget[name], retain[name]
            selected += int((f > alpha * r).sum())
            weight.copy_(dampen_weight(weight, f, r, alpha=alpha, lambda_=lambda_))
    return selected / total


def compute_forget_share(request: Request) -> float:
    """Return phi, the size of the forget set as a share of the training set, in (0, 1)."""
    return len(request.forget) / (len(request.forget) + len(request.retain))
