"""Watches an unlearning from the evaluator's side, once an epoch, and keeps its own time."""

import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.loggers import Logger

from unlearn.evaluation.metrics import accuracy
from unlearn.methods.base import UnlearningMethod
from unlearn.models.predict import logits
from unlearn.task import Task


class Monitor(L.Callback):
    """Logs what the networks inside a method answer on the corrupted samples.

    For REM: ``base/hidden_accuracy_given`` falls while ``full/hidden_accuracy_given`` stays high.

    Attributes:
        seconds: Time spent here; not the method's.
    """

    def __init__(self, method: UnlearningMethod, task: Task, loggers: Sequence[Logger]) -> None:
        """Watch ``method`` on ``task``."""
        self.method = method
        self.loggers = list(loggers)
        device = task.train.label.device
        self.corrupted = task.train.rows(task.corrupted.to(device))
        self.true = task.truth.clean_label[task.corrupted].cpu()
        self.given = self.corrupted.label.cpu()
        hidden = task.undiscovered()
        on = task.truth.corrupted.clone()
        on[:] = False
        on[hidden] = True
        self.hidden = on[task.corrupted].cpu()
        self.seconds = 0.0

    def _log(self, model: Any, step: int, epoch: int) -> None:
        if not len(self.corrupted):
            return
        started = time.perf_counter()
        values: dict[str, float] = {"epoch": float(epoch)}
        for name, masked in self.method.views(model).items():
            outputs = logits(model, self.corrupted, masked=masked).cpu()
            values[f"{name}/healed"] = accuracy(outputs, self.true)
            values[f"{name}/corrupted_accuracy_given"] = accuracy(outputs, self.given)
            if self.hidden.any():
                given = accuracy(outputs, self.given, self.hidden)
                values[f"{name}/hidden_accuracy_given"] = given
        for logger in self.loggers:
            logger.log_metrics(values, step=step)
        self.seconds += time.perf_counter() - started

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the state before the first step, as epoch 0."""
        self._log(pl_module.model, 0, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the state after the epoch."""
        self._log(pl_module.model, trainer.current_epoch + 1, trainer.current_epoch + 1)
