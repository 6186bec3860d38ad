"""RNP: unlearn trusted images, then find the channels that recovering them does not need.

Li et al., arXiv 2305.14876. Re-implemented. Differs: the threshold follows validation images, never
test data; gradients are not clipped. Shapes: B batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.components.norm_pruning import NormPruning


class RNP(NormPruning):
    """Maximise the loss on the trusted set, then train masks to undo it, then prune the original."""

    def __init__(
        self,
        *,
        gamma: float,
        recover_epochs: int,
        recover_weight: float,
        recover_optimizer: Callable[..., torch.optim.Optimizer],
        **options: Any,
    ) -> None:
        """Store the options; see ``NormPruning`` for the rest.

        Args:
            gamma: Accuracy on the trusted set at which unlearning ends, in [0, 1].
            recover_epochs: Passes over the trusted set for the masks.
            recover_weight: Factor on the loss of the masks.
            recover_optimizer: Returns the optimizer of the masks.
            options: Threshold, tolerance, seed, epochs of unlearning (maximum), batch size, optimizer
                and schedule.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(**options)
        if not 0 <= gamma <= 1:
            raise ValueError(f"method.gamma must be in [0, 1], got {gamma}")
        if recover_epochs < 1:
            raise ValueError(f"method.recover_epochs must be at least 1, got {recover_epochs}")
        self.gamma, self.recover_epochs = gamma, recover_epochs
        self.recover_weight, self.recover_optimizer = recover_weight, recover_optimizer

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Create the masks; return the model."""
        model = super().prepare(model, request)
        self.passes = self.recovered = 0
        self.recovering = self.epochs == 0
        self.right: list[Tensor] = []
        return model

    def max_epochs(self) -> int:
        """Return the maximum number of epochs of both phases."""
        return self.epochs + self.recover_epochs

    def needs_training(self) -> bool:
        """Return True: the masks are always trained."""
        return True

    def get_optimizer_index(self) -> int:
        """Return 0 while unlearning, 1 while recovering."""
        return int(self.recovering)

    def build_optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Return the optimizers of the model and of the masks."""
        return [self.optimizer(model.parameters()), self.recover_optimizer(self.masks.parameters())]

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the negated cross-entropy, or that of the masked model."""
        image, label = batch["trusted"].image, batch["trusted"].label
        if self.recovering:
            logits = self.masks.compute_logits(self.model, image)
            return self.recover_weight * F.cross_entropy(logits, label)
        logits = forward(image)
        self.right.append((logits.argmax(1) == label).detach())
        return -F.cross_entropy(logits, label)

    def on_train_batch_end(self, *_: Any) -> None:  # type: ignore[override]
        """Clip the masks."""
        self.masks.clip()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Change to the second phase once the images are unlearned; stop after it."""
        if self.recovering:
            self.recovered += 1
            if self.recovered >= self.recover_epochs:
                trainer.should_stop = True
            return
        self.passes += 1
        accuracy, self.right = torch.cat(self.right).float().mean().item(), []
        self.recovering = accuracy <= self.gamma or self.passes >= self.epochs
        self.notes |= {"unlearning_epochs": self.passes, "unlearned_accuracy": accuracy}
