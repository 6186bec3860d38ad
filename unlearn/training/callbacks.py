"""A progress bar that costs one update an epoch."""

import time
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import Logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from unlearn.core.errors import CollapsedError
from unlearn.training.loader import RequestLoader, ResidentLoader


class EpochProgress(L.Callback):
    """Shows finished epochs on standard error; leaves nothing behind when done."""

    def __init__(self, title: str, total: int | None) -> None:
        """Name the bar; ``total`` epochs, None if nobody knows beforehand."""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.progress.add_task(title, total=total)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar, at the epoch that a resumed training starts from."""
        if trainer.is_global_zero:
            self.progress.update(self.task, completed=trainer.current_epoch)
            self.progress.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move on by one."""
        self.progress.advance(self.task)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away."""
        self.progress.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Take the bar away."""
        self.progress.stop()


class EpochLog(L.Callback):
    """Sums the loss on the device and reports once an epoch: no synchronisation in the step."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        """Report to ``loggers``."""
        self.loggers = list(loggers)
        self.total: Tensor | None = None
        self.batches = 0
        self.images = 0
        self.started = time.perf_counter()

    def add_step(self, loss: Tensor, images: int) -> None:
        """Note one step's loss (scalar) and number of images."""
        loss = loss.detach()
        self.total = loss if self.total is None else self.total + loss
        self.batches += 1
        self.images += images

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the mean loss.

        Raises:
            CollapsedError: If it is not finite.
        """
        if self.total is None:
            return
        mean = trainer.strategy.reduce(self.total / self.batches, reduce_op="mean").item()
        step = trainer.current_epoch + 1
        values = {"epoch": float(step), "train/loss": mean}
        values["seconds"] = time.perf_counter() - self.started
        for logger in self.loggers:
            logger.log_metrics(values, step=step)
            logger.save()  # a killed run keeps its curves
        self.total, self.batches = None, 0
        if not torch.isfinite(torch.tensor(mean)):
            raise CollapsedError(f"loss is {mean} after epoch {trainer.current_epoch}")


class ResumeCheckpoint(L.Callback):
    """Keeps one resumable checkpoint, written by rename at the end of an epoch now and then."""

    def __init__(self, path: Path, seconds: float) -> None:
        """Write to ``path`` no more often than every ``seconds``."""
        self.path = path
        self.seconds = seconds
        self.last = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if it is time; the last epoch is the caller's to keep."""
        due = trainer.strategy.broadcast(time.monotonic() - self.last >= self.seconds)
        if due and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            part = self.path.with_suffix(".part")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                part.replace(self.path)
            self.last = time.monotonic()


class EpochOrder(L.Callback):
    """Tells a loader the epoch, so that order and augmentation follow from it.

    Lightning makes the first iterator before any hook, but draws from it only afterwards.
    """

    def __init__(self, loader: ResidentLoader | RequestLoader) -> None:
        """Serve ``loader``."""
        self.loader = loader

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the epoch that a resumed training starts from."""
        self.loader.set_epoch(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the next epoch."""
        self.loader.set_epoch(trainer.current_epoch)
