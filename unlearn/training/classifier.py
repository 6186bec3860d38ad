"""The training step of the original model.

Shapes: B batch, K classes.
"""

import copy
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch
from unlearn.models.expansion.expanded import Expanded
from unlearn.training.callbacks import EpochLog
from unlearn.training.engine import LeanModule
from unlearn.training.optimizers import use_fast_step
from unlearn.training.sharding import shard_network

if TYPE_CHECKING:
    from unlearn.training.recipe import Pretraining


class ClassifierModule(LeanModule):
    """Cross-entropy on given labels; an expanded network runs in masked mode."""

    def __init__(
        self, model: nn.Module, recipe: "Pretraining", total_steps: int, log: EpochLog
    ) -> None:
        """Store the model, the recipe, the number of steps and the log."""
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.total_steps = total_steps
        self.epoch_log = log
        self.masked = isinstance(model, Expanded)
        self.objective = copy.deepcopy(recipe.objective)  # a module: saved with the weights
        self.recorded = False  # whether recorders need the logits
        self.sharded = False  # whether ranks divide the weights
        self.parts = 1  # micro-batches that a batch is trained in
        self.started = time.perf_counter()
        self.seconds_before = 0.0  # time spent before an interruption
        self._compiled: tuple[Callable[..., Tensor]] = (
            model,
        )  # in a tuple, so that it is not registered as a submodule

    def configure_model(self) -> None:
        """Divide the weights among the ranks, if that is asked."""
        if self.sharded:
            shard_network(self.model, self.device_mesh["data_parallel"])  # type: ignore[index]

    def configure_optimizers(self) -> Any:
        """Return the optimizer."""
        more = [] if self.objective is None else self.objective.parameters()
        self.own = use_fast_step(self.recipe.optimizer([*self.model.parameters(), *more]))
        self._rates = [group["lr"] for group in self.own.param_groups]
        return self.own

    def on_train_epoch_start(self) -> None:
        """Start the objective's epoch."""
        if self.objective is not None:
            epoch, epochs = self.trainer.current_epoch, self.recipe.epochs
            self.objective.start_epoch(self.model, epoch, epochs)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate of the step."""
        factor = self.recipe.schedule(self.trainer.global_step, self.total_steps)
        for group, rate in zip(self.own.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | dict[str, Tensor]:
        """Return the mean cross-entropy (scalar), with the logits (B, K) for recorders."""
        if self.objective is not None:
            loss = self.objective.compute_loss(self.model, batch)
            self.epoch_log.add_step(loss, len(batch.label))
            return loss
        index = (batch.index,) if self.masked else ()
        logits = self._compiled[0](batch.image, *index)
        loss = F.cross_entropy(logits, batch.label)
        if batch.weight != 1:
            loss = loss * batch.weight
        self.epoch_log.add_step(loss / self.parts if self.parts > 1 else loss, len(batch.label))
        return {"loss": loss, "logits": logits.detach()} if self.recorded else loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the time spent so far."""
        checkpoint["seconds"] = self.seconds_before + time.perf_counter() - self.started

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the time spent before the interruption."""
        self.seconds_before = float(checkpoint["seconds"])

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Return the batch, which the loader has already moved to the device."""
        return batch
