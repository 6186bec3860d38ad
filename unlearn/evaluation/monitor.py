"""Logs evaluation metrics during an unlearning, and measures its own time."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import Logger

from unlearn.data.task import Task
from unlearn.evaluation.metrics import accuracy
from unlearn.methods.base import UnlearningMethod
from unlearn.models.inference import compute_logits

STEPS = 4
"""Minimum steps between measurements: an epoch over a small forget set takes a single step."""


class Monitor(L.Callback):
    """Logs accuracies of a method's networks on the corrupted samples.

    It measures after each epoch; if epochs are shorter than ``STEPS``, after that many steps, at the
    change of phases, and at the end.

    For REM: ``base/hidden_accuracy_given`` falls while ``full/hidden_accuracy_given`` stays high.

    Attributes:
        seconds: Time spent here, excluded from the method's time.
    """

    def __init__(self, method: UnlearningMethod, task: Task, loggers: Sequence[Logger]) -> None:
        """Initialize for ``method`` on ``task``."""
        self.method = method
        self.loggers = list(loggers)
        self.seconds = 0.0
        self.steps = 0  # since the last measurement
        self.phase = 0
        # A closure, since methods can reach this callback, which must not hold the ground truth.
        self._measure = _make_measure(task)

    def _log_accuracies(self, model: Any, step: int, epoch: int) -> None:
        _synchronize_device()  # work queued on the GPU counts as the method's time
        started = time.perf_counter()
        values: dict[str, float] = {"epoch": float(epoch)}
        for name, masked in self.method.get_monitored_modes(model).items():
            values |= {f"{name}/{k}": v for k, v in self._measure(model, masked).items()}
        for logger in self.loggers:
            logger.log_metrics(values, step=step)
        self.seconds += time.perf_counter() - started

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the state before the first step, as epoch 0."""
        self._log_accuracies(pl_module.model, 0, 0)
        self.steps, self.phase = 0, self._current_phase()

    def on_train_batch_end(self, *_: Any) -> None:  # type: ignore[override]
        """Count the step."""
        self.steps += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the state after the epoch, if it is due."""
        turn = self._current_phase() != self.phase
        self.phase = self._current_phase()
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if turn or last or self.steps >= STEPS:
            self.steps = 0
            self._log_accuracies(
                pl_module.model, trainer.current_epoch + 1, trainer.current_epoch + 1
            )

    def _current_phase(self) -> int:
        return getattr(
            self.method, "get_optimizer_index", int
        )()  # methods that run other methods have none


def _make_measure(task: Task) -> Callable[[Any, bool], dict[str, float]]:
    """Return a function of a model and its mode: accuracies in [0, 1] on the corrupted samples."""
    where = task.corrupted_indices
    data = task.train.rows(where.to(task.train.label.device))
    true, given = task.truth.clean_label[where].cpu(), data.label.cpu()
    hidden = torch.isin(where, task.hidden_indices()).cpu()

    def measure_model(model: Any, masked: bool) -> dict[str, float]:
        if not len(given):
            return {}
        outputs = compute_logits(model, data, masked=masked).cpu()
        values = {"healed": accuracy(outputs, true)}
        if task.truth.healed_rows is not None:
            held, right = task.healed_set()
            values["healed"] = accuracy(
                compute_logits(model, held, masked=masked).cpu(), right.cpu()
            )
        values["corrupted_accuracy_given"] = accuracy(outputs, given)
        if hidden.any():
            values["hidden_accuracy_given"] = accuracy(outputs, given, hidden)
        return values

    return measure_model


def _synchronize_device() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
