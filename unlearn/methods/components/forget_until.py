"""Training loop of gradient ascent and NPO: epochs over the forget set until it is forgotten."""

from collections.abc import Callable
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.base import UnlearningMethod, can_use_batch_statistics, set_batch_norm
from unlearn.methods.components.checkpoint_selection import BestCheckpoint
from unlearn.methods.components.removal_stop import RemovalStop

BATCH_NORM_MODES = ("train", "eval")


class RemovalMethod(UnlearningMethod):
    """Train only on the forget set until it is forgotten."""

    budget_pass: ClassVar[str] = "forget"

    def __init__(
        self,
        *,
        epochs: int,
        batch_size: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[int, int], float],
        gamma: float | str,
        force: bool = False,
        per_sample: bool = False,
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
            gamma: Accuracy on the forget set's given labels at which to stop, in [0, 1]; "auto": the
                floor, see ``RemovalStop``.
            force: With "auto": unlearn although nothing exceeds the floor.
            per_sample: With "auto": stop the removal of each sample at its own floor.
            select: Checkpoint to return: the best by "score" or "proxy", or the "last".
            select_samples: Number of retain samples to measure on; None: see ``BestCheckpoint``.
            batch_norm: Use statistics of the forget batches ("train") or running ones ("eval").

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__(
            epochs=epochs, batch_size=batch_size, optimizer=optimizer, schedule=schedule
        )
        if batch_norm not in BATCH_NORM_MODES:
            raise ValueError(f"method.batch_norm must be train or eval, got {batch_norm}")
        self.stop = RemovalStop(gamma, force=force, per_sample=per_sample)
        self.select = select
        self.select_samples = select_samples
        self.batch_norm = batch_norm

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Measure the forget accuracy; the original is the first candidate checkpoint."""
        model = super().prepare(model, request)
        self.stop.start(model, request, self.measure_accuracy, self.notes)
        self.limits = self.stop.make_limits(request.get_table_size())
        self.best = BestCheckpoint(
            request,
            mode=self.select,
            threshold=self.stop.accuracy,
            samples=self.select_samples,
            images_per_pass=len(request.forget),
            measure=self.measure_accuracy,
        )
        self.statistics = can_use_batch_statistics(self.batch_norm, request, self.batch_size)
        self.passes = 0
        self.count_measured(self.best.start(model, self.stop.floors))
        self.count_measured(self.best.update(model, self.stop.forget_accuracy, 0))
        return model

    def needs_training(self) -> bool:
        """Return whether there is something to unlearn and ``epochs`` is above 0."""
        return self.epochs > 0 and not self.notes["already_forgotten"]

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the limits of removal, if there are any."""
        return {} if self.limits is None else {"limits": self.limits}

    def average_over_remembered(
        self, losses: Tensor, cross_entropy: Tensor, index: Tensor
    ) -> Tensor:
        """Return the mean removal loss, a scalar, in which samples at their floor count as 0.

        Args:
            losses: Removal loss per sample, (B,).
            cross_entropy: Cross-entropy of the given labels, (B,).
            index: Indices of the samples, (B,).
        """
        if self.limits is not None:
            losses = losses * self.limits.select(cross_entropy, index)
        return losses.mean()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the batch-norm mode."""
        set_batch_norm(pl_module.model, train=self.statistics)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop once the forget set is forgotten."""
        model: Any = pl_module.model
        self.passes += 1
        accuracy = self.measure_accuracy(model, self.best.request.forget)
        self.count_measured(self.best.update(model, accuracy, self.passes))
        if self.stop.is_reached(accuracy):
            trainer.should_stop = True

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the selected checkpoint."""
        self.notes |= {"epochs": self.passes} | self.best.restore_best_weights(model)
        return model
