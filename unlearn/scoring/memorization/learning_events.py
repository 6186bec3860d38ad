"""Learning events: predictions for each sample during training (arXiv 2002.03206, 2410.16516).

Re-implemented, vectorized: one gather and one scatter per batch. "confidence" is also the C-proxy of
arXiv 2406.01257. Shapes: N samples, B batch, K classes.
"""

import time
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor

from unlearn.core.types import Batch, ImageSet
from unlearn.models.inference import compute_logits
from unlearn.scoring.base import MeanRecorder, Recorder, Score, ScoringInputs

EVENTS = ("confidence", "max_confidence", "entropy", "binary_accuracy")
MODES = ("online", "eval_pass")


def compute_events(outputs: Tensor, label: Tensor) -> Tensor:
    """Return the raw values of ``EVENTS`` for outputs (B, K) and labels (B,), (4, B).

    confidence: probability of the label; max_confidence: of the most likely class; entropy: sum of
    p log p, at most 0, with 0 log 0 = 0; binary_accuracy: 1 if the label is the most likely class.
    """
    # In double precision, so that sums over many epochs keep small differences.
    p = outputs.detach().double().softmax(1)
    likeliest, said = p.max(1)
    own = p.gather(1, label[:, None])[:, 0]
    certainty = -torch.special.entr(p).sum(1)
    return torch.stack([own, likeliest, certainty, (said == label).double()])


class LearningEvents(MeanRecorder):
    """Record the mean of the events of every sample over the epochs."""

    name: ClassVar[str] = "events"

    def __init__(self, *, mode: str) -> None:
        """Store the mode.

        Args:
            mode: "online": in the training forward pass (train mode, augmented, before the step);
                "eval_pass": in a pass over the training set after each epoch.

        Raises:
            ValueError: If the mode is unknown.
        """
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"score.mode must be online or eval_pass, got {mode}")
        self.mode = mode

    def get_options(self) -> dict[str, Any]:
        """Return name and mode."""
        return {"name": self.name, "mode": self.mode}

    def start_recording(self, data: ImageSet, epochs: int) -> None:
        """Allocate the sums and keep the training set."""
        super().start_recording(data, epochs)
        self.data = data

    def value_shape(self) -> tuple[int, ...]:
        """Return the shape (number of events,)."""
        return (len(EVENTS),)

    def add_batch(self, outputs: Tensor, label: Tensor, index: Tensor) -> None:
        """Add the events of a batch: outputs (B, K), labels (B,), rows (B,)."""
        self.add_values(compute_events(outputs, label.to(outputs.device)), index)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:  # fmt: skip
        """Record the outputs of the training forward pass."""
        if self.mode != "online":
            return
        started = time.perf_counter()
        self.add_batch(outputs["logits"], batch.label, batch.index)
        self.seconds += time.perf_counter() - started

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record a pass over the training set if ``mode`` is "eval_pass"."""
        if self.mode != "eval_pass" or not trainer.is_global_zero:  # one rank is enough
            return
        started = time.perf_counter()
        model: Any = pl_module.model
        self.add_batch(compute_logits(model, self.data), self.data.label, self.data.index)
        self.seconds += time.perf_counter() - started

    def get_records(self) -> dict[str, Tensor]:
        """Return the mean of each event per sample under "events/<name>"."""
        return {
            f"events/{name}": mean for name, mean in zip(EVENTS, self.compute_means(), strict=True)
        }


class LearningEvent(Score):
    """Negated mean of one event over training; samples learned late have high scores."""

    def __init__(self, *, event: str, mode: str) -> None:
        """Store the options.

        Args:
            event: One of ``EVENTS``.
            mode: Mode of ``LearningEvents``.

        Raises:
            ValueError: If the event is unknown.
        """
        super().__init__()
        if event not in EVENTS:
            raise ValueError(f"score.event must be one of {', '.join(EVENTS)}, got {event}")
        self.event = event
        self.mode = mode

    def make_recorder(self) -> Recorder:
        """Return the callback that records all events."""
        return LearningEvents(mode=self.mode)

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the negated mean of the event, (N,)."""
        return -subject.records[f"events/{self.event}"]
