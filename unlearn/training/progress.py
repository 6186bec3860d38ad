"""A progress bar that costs one update an epoch."""

import lightning.pytorch as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


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
