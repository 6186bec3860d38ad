"""Training loop of gradient ascent and NPO: epochs over the forget set until it is forgotten."""

from collections.abc import Callable
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import nn

from unlearn.core.types import Request
from unlearn.methods.base import UnlearningMethod, can_use_batch_statistics, set_batch_norm
from unlearn.methods.components.checkpoint_selection import ProxyCheckpoint

BATCH_NORM_MODES = ("train", "eval")


class RemovalMethod(UnlearningMethod):
    """Train only on the forget set until its accuracy is at most gamma."""

    budget_pass: ClassVar[str] = "forget"

    def __init__(
        self,
        *,
        epochs: int,
        batch_size: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[int, int], float],
        gamma: float,
        select: str,
        select_samples: int | None,
        batch_norm: str,
    ) -> None:
        """Store the options.

        Args:
            epochs: Maximum number of passes over the forget set.
            batch_size: B.
            optimizer: Returns an optimizer for the given parameters.
            schedule: Learning-rate factor.
            gamma: Accuracy on the forget set's given labels at which to stop, in [0, 1].
            select: "proxy" returns the checkpoint with the best proxy, "last" the last one.
            select_samples: Number of retain samples for the proxy; None: see ``ProxyCheckpoint``.
            batch_norm: Use statistics of the forget batches ("train") or running ones ("eval").

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__(
            epochs=epochs, batch_size=batch_size, optimizer=optimizer, schedule=schedule
        )
        if batch_norm not in BATCH_NORM_MODES:
            raise ValueError(f"method.batch_norm must be train or eval, got {batch_norm}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"method.gamma must be in [0, 1], got {gamma}")
        self.gamma = gamma
        self.select = select
        self.select_samples = select_samples
        self.batch_norm = batch_norm

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Measure the forget accuracy; the original is the first candidate checkpoint."""
        model = super().prepare(model, request)
        self.best = ProxyCheckpoint(
            request,
            mode=self.select,
            threshold=self.gamma,
            samples=self.select_samples,
            images_per_pass=len(request.forget),
            measure=self.measure_accuracy,
        )
        self.statistics = can_use_batch_statistics(self.batch_norm, request, self.batch_size)
        self.passes = 0
        self.forget_accuracy = self.measure_accuracy(model, request.forget)
        self.notes["already_forgotten"] = self.forget_accuracy <= self.gamma
        self.best.update(model, self.forget_accuracy, 0)
        return model

    def needs_training(self) -> bool:
        """Return whether the forget accuracy is above gamma and ``epochs`` is above 0."""
        return self.epochs > 0 and self.forget_accuracy > self.gamma

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the batch-norm mode."""
        set_batch_norm(pl_module.model, train=self.statistics)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop once the forget set is forgotten."""
        model: Any = pl_module.model
        self.passes += 1
        self.forget_accuracy = self.measure_accuracy(model, self.best.forget)
        self.best.update(model, self.forget_accuracy, self.passes)
        if self.forget_accuracy <= self.gamma:
            trainer.should_stop = True

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the selected checkpoint."""
        self.notes |= {"epochs": self.passes} | self.best.restore_best_weights(model)
        return model
