"""What the dampening methods share: importances of all weights for the forget and the retain set."""

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
    """Base of SSD and its descendants.

    Attributes:
        measure: What is differentiated.
        power: 2: squared gradients; 1: absolute ones.
    """

    measure: ClassVar[Measure] = staticmethod(cross_entropy)
    power: ClassVar[int] = 2

    def __init__(self, *, batch_size: int, seed: int) -> None:
        """Keep how images are grouped.

        Args:
            batch_size: B; gradients are averaged over a batch before they are squared.
            seed: Seeds which samples form a batch.
        """
        super().__init__(batch_size=batch_size)
        self.seed = seed

    def compute_importances(
        self, model: nn.Module, request: Request
    ) -> tuple[Importance, Importance]:
        """Return what the weights matter to the forget and to the retain set; count the images."""
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
    """Dampen the model's weights in place; return the share of all weights that was selected."""
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
