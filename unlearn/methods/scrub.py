"""SCRUB: maximise and minimise the distance to a teacher (Kurmanji et al., arXiv 2302.09880).

Re-implemented. Form "benchmark" (arXiv 2402.14015, 2505.17730) maximises cross-entropy plus
distillation on the forget set while fewer than ``msteps`` steps were taken, and minimises it on the
retain set; form "original" maximises only the distillation, for ``max_passes`` passes.
"""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod, can_use_batch_statistics, set_batch_norm
from unlearn.methods.components.distillation import distillation_loss, frozen_copy


class Scrub(UnlearningMethod):
    """Alternate a maximising pass over the forget set and a minimising pass over the retain set."""

    stackable = True
    mean_loss = True

    def __init__(
        self,
        *,
        form: str,
        alpha: float,
        ce_weight: float,
        temperature: float,
        msteps: int,
        max_passes: int,
        forget_batch_size: int | None,
        batch_norm: str,
        **recipe: Any,
    ) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            form: "benchmark" or "original".
            alpha: Weight of the distillation, at least 0; 1 in maximising passes of "original".
            ce_weight: Weight of the cross-entropy in form "original" (the paper's gamma).
            temperature: Temperature of the distillation, above 0.
            msteps: Form "benchmark" maximises again while fewer steps of any kind were taken.
            max_passes: Number of maximising passes in form "original".
            forget_batch_size: Images per step on the forget set; None: ``batch_size``.
            batch_norm: Use statistics of the batch ("train") or running ones ("eval") while
                maximising.
            recipe: Recipe; maximising steps count as budget in form "benchmark" only.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__(**recipe)
        for name, value, fits, allowed in (
            ("form", form, form in ("benchmark", "original"), "benchmark or original"),
            ("batch_norm", batch_norm, batch_norm in ("train", "eval"), "train or eval"),
            ("alpha", alpha, alpha >= 0, "at least 0"),
            ("temperature", temperature, temperature > 0, "above 0"),
        ):
            if not fits:
                raise ValueError(f"method.{name} must be {allowed}, got {value}")
        self.original, self.batch_norm = form == "original", batch_norm
        self.alpha, self.temperature, self.climbs, self.descents = alpha, temperature, 0, 0
        self.ce_weight = ce_weight if self.original else 1.0
        self.msteps, self.max_passes = msteps, max_passes
        self.forget_batch_size = forget_batch_size or self.batch_size

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Create the frozen teacher; return the model."""
        model = super().prepare(model, request)
        self.teacher = frozen_copy(model)
        self.climbing = (self.max_passes if self.original else self.msteps) > 0
        self.batch_statistics = can_use_batch_statistics(
            self.batch_norm, request, self.forget_batch_size
        )
        return model

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the teacher."""
        return {"teacher": self.teacher}

    def uses(self, epoch: int) -> tuple[str, ...]:
        """Return the set of the current pass."""
        return ("forget",) if self.climbing else ("retain",)

    def batch_sizes(self) -> dict[str, int]:
        """Return B of each set."""
        return {"retain": self.batch_size, "forget": self.forget_batch_size}

    def get_optimizer_index(self) -> int:
        """Return 1 for a step that does not count as budget, else 0."""
        return int(self.original and self.climbing)

    def max_epochs(self) -> int:
        """Return -1: the budget is counted in steps."""
        return -1

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of a retain batch, or the negated loss of a forget batch."""
        ((name, part),) = batch.items()
        logits = forward(part.image)
        with torch.no_grad():
            teacher = self.teacher(part.image).float()
        distance = distillation_loss(logits, teacher, self.temperature)
        loss = self.ce_weight * F.cross_entropy(logits, part.label) + self.alpha * distance
        if name == "forget":
            return -distance if self.original else -loss
        return loss

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the batch-norm mode of the pass."""
        set_batch_norm(pl_module.model, train=not self.climbing or self.batch_statistics)  # type: ignore[arg-type]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:  # type: ignore[override]
        """Stop, also within a pass, when the budget is used up."""
        trainer.should_stop |= not self.original and pl_module.spent >= pl_module.total_steps

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Count the pass and select the next one."""
        self.climbs += self.climbing
        self.descents += not self.climbing
        more = self.climbs < self.max_passes if self.original else pl_module.spent < self.msteps
        self.climbing = not self.climbing and more
        trainer.should_stop |= self.original and self.descents >= self.epochs
        self.notes |= {"forget_passes": self.climbs, "retain_passes": self.descents}
