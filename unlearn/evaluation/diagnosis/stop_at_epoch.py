"""Stops a training after an epoch, with the schedule of the full training."""

from typing import Any, ClassVar

import lightning.pytorch as L
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.scoring.base import Recorder


class StopAtEpoch(Recorder):
    """Stops after an epoch; order and learning rate are those of the full training."""

    name: ClassVar[str] = "until"
    joins: ClassVar[bool] = True

    def __init__(self, epoch: int) -> None:
        """Store the last epoch, from 1."""
        super().__init__()
        self.epoch = epoch

    def start_recording(self, data: ImageSet, epochs: int) -> None:
        """Do nothing."""

    def get_records(self) -> dict[str, Tensor]:
        """Return no records."""
        return {}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop after the last epoch."""
        trainer.should_stop = trainer.current_epoch + 1 >= self.epoch

    def get_options(self) -> dict[str, Any]:
        """Return the epoch."""
        return {"name": self.name, "epoch": self.epoch}
