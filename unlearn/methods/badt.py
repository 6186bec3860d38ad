"""Bad Teaching: a competent teacher for the retain set, an incompetent one for the forget set.

Chundawat et al., arXiv 2205.08096. Re-implemented from the description. Differs: all retain
samples are used, as in the benchmarks (arXiv 2402.14015, 2505.17730).
Shapes: B batch.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.components.distillation import REDUCTIONS, bad_teaching_loss, frozen_copy
from unlearn.methods.components.lookup_tensors import BufferDict
from unlearn.methods.components.losses import build_membership_table
from unlearn.models.surgery import draw_unrelated_network


class BadT(UnlearningMethod):
    """Distil the original model on the retain set and an untrained network on the forget set."""

    stackable = True
    mean_loss = True
    full_precision: ClassVar[bool] = False
    budget_pass: ClassVar[str] = "all"
    step_cost: ClassVar[float] = 1.7  # two teachers

    def __init__(self, *, kl_reduction: str, seed: int, **recipe: Any) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            kl_reduction: Average the divergence over samples and classes ("element") or over
                samples ("batch").
            seed: Seed of the incompetent teacher's weights.
            recipe: Epochs, batch size, optimizer and schedule.

        Raises:
            ValueError: If the reduction is unknown.
        """
        super().__init__(**recipe)
        if kl_reduction not in REDUCTIONS:
            raise ValueError(f"method.kl_reduction must be element or batch, got {kl_reduction}")
        self.kl_reduction = kl_reduction
        self.seed = seed

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Create both teachers and the table of forget samples; return the model."""
        model = super().prepare(model, request)
        self.competent = frozen_copy(model)
        self.incompetent = frozen_copy(draw_unrelated_network(model, self.seed))
        forgotten = build_membership_table(request.forget.index, request.get_all_indices())
        self.held = BufferDict(forgotten=forgotten.to(next(model.parameters()).device))
        return model

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the teachers and the table of forget samples."""
        return {
            "competent": self.competent, "incompetent": self.incompetent, "held": self.held,
        }  # fmt: skip

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean divergence from each sample's teacher."""
        part = batch["all"]
        with torch.no_grad():
            competent = self.competent(part.image).float()
            incompetent = self.incompetent(part.image).float()
        found = self.held["forgotten"][part.index]
        return bad_teaching_loss(
            forward(part.image), competent, incompetent, found, self.kl_reduction
        )
