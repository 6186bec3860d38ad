"""Watches an unlearning from the evaluator's side, once an epoch, and keeps its own time."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as L
import torch
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
        self.seconds = 0.0
        # A function, since methods meet this object among the trainer's callbacks: it holds no truth.
        self._measure = _measure(task)

    def _log(self, model: Any, step: int, epoch: int) -> None:
        _wait()  # what the method has queued on the GPU is its own time
        started = time.perf_counter()
        values: dict[str, float] = {"epoch": float(epoch)}
        for name, masked in self.method.views(model).items():
            values |= {f"{name}/{k}": v for k, v in self._measure(model, masked).items()}
        for logger in self.loggers:
            logger.log_metrics(values, step=step)
        self.seconds += time.perf_counter() - started

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the state before the first step, as epoch 0."""
        self._log(pl_module.model, 0, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the state after the epoch."""
        self._log(pl_module.model, trainer.current_epoch + 1, trainer.current_epoch + 1)


def _measure(task: Task) -> Callable[[Any, bool], dict[str, float]]:
    """Return a function of a model and its mode: accuracies in [0, 1] on the corrupted samples."""
    where = task.corrupted
    data = task.train.rows(where.to(task.train.label.device))
    true, given = task.truth.clean_label[where].cpu(), data.label.cpu()
    hidden = torch.isin(where, task.undiscovered()).cpu()

    def measure(model: Any, masked: bool) -> dict[str, float]:
        if not len(given):
            return {}
        outputs = logits(model, data, masked=masked).cpu()
        values = {"healed": accuracy(outputs, true)}
        values["corrupted_accuracy_given"] = accuracy(outputs, given)
        if hidden.any():
            values["hidden_accuracy_given"] = accuracy(outputs, given, hidden)
        return values

    return measure


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
