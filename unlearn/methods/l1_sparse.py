"""L1-sparse: fine-tune on the retain set with a decaying L1 penalty (Jia et al., arXiv 2304.04934).

Re-implemented from the description; the variant without a final pruning step.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.components.lookup_tensors import BufferDict


def penalty_weight(epoch: int, epochs: int, free_epochs: int, gamma: float) -> float:
    """Return gamma * (1 - epoch / (epochs - free_epochs)), 0 in the last ``free_epochs``."""
    under = epochs - free_epochs
    return gamma * (1 - epoch / under) if epoch < under else 0.0


class L1Sparse(UnlearningMethod):
    """Fine-tuning with an L1 penalty on all parameters."""

    stackable = True
    mean_loss = True
    full_precision: ClassVar[bool] = False

    def __init__(self, *, gamma: float, free_epochs: int, **recipe: Any) -> None:
        """Store the penalty; see ``UnlearningMethod`` for the rest.

        Args:
            gamma: Weight of the L1 norm of all parameters in the first epoch, at least 0.
            free_epochs: Number of final epochs without penalty.
            recipe: Epochs, batch size, optimizer and schedule.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(**recipe)
        if gamma < 0 or free_epochs < 0:
            raise ValueError(
                f"method.gamma and method.free_epochs must be at least 0, got {gamma} and {free_epochs}"
            )
        self.gamma = gamma
        self.free_epochs = free_epochs
        self.held = BufferDict(weight=torch.tensor(float(gamma)))

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the model; all parameters, including biases and norms, are penalised."""
        self.model = super().prepare(model, request)
        self.held.to(next(self.model.parameters()).device)
        return self.model

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the penalty's weight."""
        return {"held": self.held}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the penalty weight of the epoch."""
        self.held["weight"].fill_(
            penalty_weight(trainer.current_epoch, self.epochs, self.free_epochs, self.gamma)
        )

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return cross-entropy on the retain batch plus the penalty."""
        retain = batch["retain"]
        size = torch.stack([p.abs().sum() for p in self.model.parameters()]).sum()
        return F.cross_entropy(forward(retain.image), retain.label) + self.held["weight"] * size
