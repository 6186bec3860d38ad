"""Callbacks for progress, logging, checkpoints and the order of samples."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import Logger
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from unlearn.core.console import make_console
from unlearn.core.errors import CollapsedError
from unlearn.core.verified_files import get_folder_key, seal_file
from unlearn.training.loader import RequestLoader, ResidentLoader


class EpochProgress(L.Callback):
    """Progress bar of epochs on standard error, removed at the end."""

    def __init__(self, title: str, total: int | None) -> None:
        """Create the bar named ``title`` for ``total`` epochs; None if unknown."""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=make_console(stderr=True),
            transient=True,
        )
        self.task = self.progress.add_task(title, total=total)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar, starting at the epoch from which training is resumed."""
        if trainer.is_global_zero:
            self.progress.update(self.task, completed=trainer.current_epoch)
            self.progress.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Advance the bar by one epoch."""
        self.progress.advance(self.task)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar."""
        self.progress.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Remove the bar."""
        self.progress.stop()


class EpochLog(L.Callback):
    """Accumulate the loss on the device and log once per epoch, without synchronising steps."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        """Store the loggers."""
        self.loggers = list(loggers)
        self.average: Callable[[Tensor], Tensor] | None = None  # over ranks, without a strategy
        self.steps: int | None = None  # of an epoch, if several losses are added for each
        self.total: Tensor | None = None
        self.batches = 0
        self.images = 0
        self.started = time.perf_counter()

    def add_step(self, loss: Tensor, images: int) -> None:
        """Add one step's loss (scalar) and number of images."""
        loss = loss.detach()
        self.total = loss if self.total is None else self.total + loss
        self.batches += 1
        self.images += images

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the mean loss.

        Raises:
            CollapsedError: If the mean loss is not finite.
        """
        if self.total is None:
            return
        own = self.total / (self.steps or self.batches)
        if self.average is not None:
            mean = self.average(own).item()
        else:
            mean = trainer.strategy.reduce(own, reduce_op="mean").item()
        step = trainer.current_epoch + 1
        values = {"epoch": float(step), "train/loss": mean}
        values["seconds"] = time.perf_counter() - self.started
        for logger in self.loggers:
            logger.log_metrics(values, step=step)
            logger.save()  # so that a killed run keeps its curves
        self.total, self.batches = None, 0
        if not torch.isfinite(torch.tensor(mean)):
            raise CollapsedError(f"loss is {mean} after epoch {trainer.current_epoch}")


class ResumeCheckpoint(L.Callback):
    """Save one resumable checkpoint, sealed, atomically at the end of epochs, at a minimum interval."""

    def __init__(self, path: Path, seconds: float) -> None:
        """Store the path and the minimum interval in ``seconds``."""
        self.path = path
        self.seconds = seconds
        self.last = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if the interval has passed; not after the last epoch, which the caller saves."""
        due = trainer.strategy.broadcast(time.monotonic() - self.last >= self.seconds)
        if due and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            part = self.path.with_suffix(".part")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                seal_file(part, get_folder_key(self.path))
                part.replace(self.path)
            self.last = time.monotonic()


class EpochOrder(L.Callback):
    """Set the epoch of a loader, which determines order and augmentation.

    Lightning creates the first iterator before any hook, but reads from it only afterwards.
    """

    def __init__(self, loader: ResidentLoader | RequestLoader) -> None:
        """Store the loader."""
        self.loader = loader

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the epoch from which training is resumed."""
        self.loader.set_epoch(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the next epoch."""
        self.loader.set_epoch(trainer.current_epoch)
