"""Negative preference optimisation (Zhang et al., arXiv 2404.05868), adapted to classification.

Re-implemented; the classification form is that of REM's benchmark (arXiv 2505.17730).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.components.distillation import frozen_copy
from unlearn.methods.components.forget_until import RemovalMethod
from unlearn.methods.components.losses import npo_losses, sample_losses


class NPO(RemovalMethod):
    """Ascent on the forget set whose gradient vanishes for samples already forgotten."""

    stackable = True
    mean_loss = True

    def __init__(self, *, beta: float, **removal: Any) -> None:
        """Store beta > 0, the inverse temperature; see ``RemovalMethod`` for the rest.

        Raises:
            ValueError: If beta is not positive.
        """
        super().__init__(**removal)
        if beta <= 0:
            raise ValueError(f"method.beta must be above 0, got {beta}")
        self.beta = beta

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Create the frozen reference; return the model."""
        model = super().prepare(model, request)
        self.reference = frozen_copy(model)
        return model

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the reference and the limits."""
        return {"reference": self.reference, **super().get_loss_modules()}

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the NPO loss of the forget batch."""
        forget = batch["forget"]
        with torch.no_grad():
            reference = sample_losses(self.reference(forget.image).float(), forget.label)
        losses = sample_losses(forward(forget.image), forget.label)
        return self.average_over_remembered(
            npo_losses(losses, reference, self.beta), losses, forget.index
        )
