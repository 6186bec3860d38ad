"""Random relabelling: train with random labels for the forget set (after arXiv 2010.10981).

Re-implemented; the baseline called RL in arXiv 2310.12508. Every other sample keeps its label.
Shapes: B batch, n forget samples, N indices, K classes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.components.lookup_tensors import BufferDict


def draw_other_labels(label: Tensor, num_classes: int, seed: int) -> Tensor:
    """Return for each label (n,) one of the K - 1 other labels, uniformly distributed."""
    generator = torch.Generator().manual_seed(seed)
    away = torch.randint(1, num_classes, label.shape, generator=generator)
    return (label + away.to(label.device)) % num_classes


def draw_any_labels(label: Tensor, num_classes: int, seed: int) -> Tensor:
    """Return for each label (n,) one of all K labels, uniformly distributed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, num_classes, label.shape, generator=generator).to(label.device)


def replace_forget_labels(batch: Batch, new_label: Tensor) -> Tensor:
    """Return the labels (B,) of a batch with those of the forget set replaced.

    Args:
        batch: Samples of any set.
        new_label: New labels of the forget set by index, (N,); -1: keep the given label.
    """
    new = new_label[batch.index]
    return torch.where(new < 0, batch.label, new)


MIX_MODES = ("union", "sequential")


class RandomLabelling(UnlearningMethod):
    """Train on all data, with random labels for the forget set."""

    stackable = True
    mean_loss = True
    full_precision: ClassVar[bool] = False
    budget_pass: ClassVar[str] = "all"

    def __init__(
        self, *, redraw: bool, exclude_true: bool, mix: str, seed: int, **recipe: Any
    ) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            redraw: Redraw the labels every epoch instead of once.
            exclude_true: Never draw the given label.
            mix: "union": batches of all data; "sequential": in each epoch a pass over the
                relabelled forget set, then one over the retain set.
            seed: Seed of the labels.
            recipe: Epochs, batch size, optimizer and schedule.

        Raises:
            ValueError: If ``mix`` is unknown.
        """
        super().__init__(**recipe)
        if mix not in MIX_MODES:
            raise ValueError(f"method.mix must be union or sequential, got {mix}")
        self.redraw = redraw
        self.draw = draw_other_labels if exclude_true else draw_any_labels
        self.passes = MIX_MODES.index(mix) + 1
        self.seed = seed

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Draw the labels; return the model."""
        model = super().prepare(model, request)
        self.forget = request.forget.to(next(model.parameters()).device)
        size = request.get_table_size()
        self.held = BufferDict(new_label=torch.full((size,), -1, device=self.forget.label.device))
        self._draw_labels(0)
        return model

    def _draw_labels(self, epoch: int) -> None:
        seed = self.seed * 1_000_003 + epoch
        self.new_label = self.draw(self.forget.label, self.forget.num_classes, seed)
        self.held["new_label"][self.forget.index] = self.new_label

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the new labels."""
        return {"held": self.held}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Redraw the labels if ``redraw`` is True."""
        if self.redraw:
            self._draw_labels(trainer.current_epoch // self.passes)

    def uses(self, epoch: int) -> tuple[str, ...]:
        """Return "all", or alternately "forget" and "retain"."""
        return ("all",) if self.passes == 1 else (("forget", "retain")[epoch % 2],)

    def max_epochs(self) -> int:
        """Return the number of passes."""
        return self.epochs * self.passes

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean cross-entropy with the new labels."""
        (part,) = batch.values()
        label = replace_forget_labels(part, self.held["new_label"])
        return F.cross_entropy(forward(part.image), label)
