"""NegGrad+: descent on the retain set and ascent on the forget set in the same step.

Baseline of Kurmanji et al. (arXiv 2302.09880). Re-implemented from the description.
Differs: may stop once the forget set is forgotten; both batches may share one forward pass.
Shapes: B batch, K classes.
"""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod, can_use_batch_statistics
from unlearn.methods.components.losses import sample_losses
from unlearn.methods.components.removal_stop import RemovalStop

BATCH_NORM_MODES = ("separate", "joint")


def neggrad_plus_loss(retain: Tensor, forget: Tensor, beta: float) -> Tensor:
    """Return beta * retain - (1 - beta) * forget for two mean cross-entropies, scalars."""
    return beta * retain - (1 - beta) * forget


class NegGradPlus(UnlearningMethod):
    """Minimise the loss of a retain batch and maximise that of a forget batch in each step."""

    stackable = True
    mean_loss = True

    def __init__(
        self,
        *,
        beta: float,
        gamma: float | str,
        force: bool = False,
        per_sample: bool = False,
        stop: bool,
        forget_batch_size: int | None,
        batch_norm: str,
        **recipe: Any,
    ) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            beta: Weight of the retain loss, in (0, 1]; the forget loss has weight 1 - beta.
            gamma: Accuracy on the forget set's given labels at which it counts as forgotten, in
                [0, 1]; "auto": the floor, see ``RemovalStop``.
            force: With "auto": unlearn although nothing exceeds the floor.
            per_sample: With "auto": stop the removal of each sample at its own floor.
            stop: Stop after the first epoch in which the forget set is forgotten.
            forget_batch_size: Forget samples per step; None: as many as retain samples.
            batch_norm: Statistics per batch ("separate") or of both batches ("joint").
            recipe: Epochs, batch size, optimizer and schedule.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__(**recipe)
        if not 0 < beta <= 1:
            raise ValueError(f"method.beta must be in (0, 1], got {beta}")
        if batch_norm not in BATCH_NORM_MODES:
            raise ValueError(f"method.batch_norm must be separate or joint, got {batch_norm}")
        self.beta = beta
        self.target = RemovalStop(gamma, force=force, per_sample=per_sample)
        self.stop = stop
        self.forget_batch_size = forget_batch_size or self.batch_size
        self.joint = batch_norm == "joint"

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Measure whether the forget set is already forgotten; return the model."""
        model = super().prepare(model, request)
        self.forget = request.forget
        self.limits = None
        if self.stop:
            self.target.start(model, request, self.measure_accuracy, self.notes)
            self.limits = self.target.make_limits(request.get_table_size())
        own = can_use_batch_statistics("train", request, self.forget_batch_size)
        self.joint = self.joint or not own
        return model

    def _is_forgotten(self, model: nn.Module) -> bool:
        return self.target.is_reached(self.measure_accuracy(model, self.forget))

    def needs_training(self) -> bool:
        """Return whether training is needed: not if ``stop`` and the forget set is forgotten."""
        return super().needs_training() and not self.notes.get("already_forgotten", False)

    def uses(self, epoch: int) -> tuple[str, ...]:
        """Return both sets; an epoch is one pass over the retain set, the forget set repeats."""
        return ("retain", "forget")

    def batch_sizes(self) -> dict[str, int]:
        """Return B of each set."""
        return {"retain": self.batch_size, "forget": self.forget_batch_size}

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the weighted difference of the two losses."""
        retain, forget = batch["retain"], batch["forget"]
        if self.joint:
            both = forward(torch.cat([retain.image, forget.image]))
            logits = both.split([len(retain.label), len(forget.label)])
        else:
            logits = forward(retain.image), forward(forget.image)
        removal = sample_losses(logits[1], forget.label)
        if self.limits is not None:
            removal = removal * self.limits.select(removal, forget.index)
        kept = F.cross_entropy(logits[0], retain.label) * retain.weight
        return neggrad_plus_loss(kept, removal.mean() * forget.weight, self.beta)

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the limits of removal, if there are any."""
        return {} if self.limits is None else {"limits": self.limits}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop once the forget set is forgotten."""
        model: Any = pl_module.model
        if self.stop and self._is_forgotten(model):
            trainer.should_stop = True
