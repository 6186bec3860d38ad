"""Retraining from scratch on the retain set, exact unlearning (EU in arXiv 2402.14015). Re-implemented."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.components.robust_objective import RobustObjective
from unlearn.methods.finetune import Finetune
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.surgery import reinitialize_network


class Retrain(Finetune):
    """Train a new network with the pre-training recipe on the retain set.

    Attributes:
        objective: Objective in place of cross-entropy; None: cross-entropy.
    """

    role: ClassVar[str] = "reference"
    objective: RobustObjective | None = None

    def __init__(self, *, seed: int, **recipe: Any) -> None:
        """Store the seed of the new weights; see ``UnlearningMethod`` for the rest."""
        super().__init__(**recipe)
        self.seed = seed

    def use_objective(self, objective: RobustObjective) -> None:
        """Train with a copy of this objective."""
        self.objective = copy.deepcopy(objective)
        self.stackable = self.compilable = False

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return a network of the same architecture with new weights."""
        new = reinitialize_network(remove_extra_channels(model), self.seed)
        if self.objective is not None:
            self.objective.start(new, request.retain, seed=self.seed)
        return new

    def build_optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Return the optimizer of the network and of the objective's parameters."""
        more = [] if self.objective is None else self.objective.parameters()
        return [self.optimizer([*model.parameters(), *more])]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the objective's epoch."""
        if self.objective is not None:
            model: Any = pl_module.model
            self.objective.to(next(model.parameters()).device).train()
            self.objective.augment = getattr(trainer.train_dataloader, "augment", None)
            self.objective.start_epoch(model, trainer.current_epoch, self.epochs)

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the objective, else the mean cross-entropy, on the retain batch."""
        if self.objective is None:
            return super().loss(forward, batch)
        return self.objective.compute_loss(forward, batch["retain"])

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the network; note what the objective reports."""
        if self.objective is not None:
            self.notes |= self.objective.describe()
        return super().finish(model)


class RobustRetrain(Retrain):
    """Base class of methods that train from scratch on the retain set with a robust objective."""

    role: ClassVar[str] = "unlearning"
    stackable = False
    compilable: bool = False

    def __init__(self, *, objective: RobustObjective, **recipe: Any) -> None:
        """Store the objective; see ``Retrain`` for the rest."""
        super().__init__(**recipe)
        self.use_objective(objective)
