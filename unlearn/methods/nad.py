"""NAD: distil the attention maps of a fine-tuned copy of the model into the model.

Li et al., arXiv 2101.05930. Re-implemented. Differs: maps are taken before pooling in any network, of
the last stages; one rate of the trusted images for teacher and student. Shapes: B batch, K classes.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.components.attention_maps import (
    compute_attention_map,
    find_stages,
    record_outputs,
)
from unlearn.methods.components.distillation import frozen_copy
from unlearn.methods.components.trusted_training import TrustedMethod


def attention_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Return the weighted sum of mean squared differences of attention maps, a scalar."""
    parts = [
        weight * F.mse_loss(compute_attention_map(s), compute_attention_map(t.detach()))
        for s, t, weight in zip(student, teacher, weights, strict=True)
    ]
    return torch.stack(parts).sum()


class NAD(TrustedMethod):
    """Fine-tune a teacher on the trusted set, then train the original towards its attention."""

    compilable: bool = False
    full_precision: ClassVar[bool] = True

    def __init__(
        self,
        *,
        betas: Sequence[float],
        teacher_epochs: int,
        teacher_optimizer: Callable[..., torch.optim.Optimizer],
        **recipe: Any,
    ) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            betas: Weights of the attention of the last stages, the last one last.
            teacher_epochs: Passes over the trusted set for the teacher.
            teacher_optimizer: Returns the teacher's optimizer; its rate is constant.
            recipe: Epochs, batch size, optimizer and schedule of the student.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__(**recipe)
        if not betas or min(betas) < 0:
            raise ValueError(f"method.betas must be weights of at least 0, got {list(betas)}")
        if teacher_epochs < 1:
            raise ValueError(f"method.teacher_epochs must be at least 1, got {teacher_epochs}")
        self.betas, self.teacher_epochs = list(betas), teacher_epochs
        self.teacher_optimizer = teacher_optimizer

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Check that the network has feature maps."""
        find_stages(model, image, len(self.betas))

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Find the stages and keep the original's values; return the model."""
        self.model = super().prepare(model, request)
        few = next(self.fit_set.rows(torch.arange(min(2, len(self.fit_set)))).batches()).image
        self.stages = find_stages(self.model, few, len(self.betas))
        self.original = copy.deepcopy(self.model.state_dict())
        self.teacher: nn.Module | None = None
        self.notes["stages"] = self.stages
        return self.model

    def max_epochs(self) -> int:
        """Return the number of epochs of teacher and student."""
        return self.teacher_epochs + self.epochs

    def get_optimizer_index(self) -> int:
        """Return 1 for the teacher, 0 for the student."""
        return int(self.teacher is None)

    def build_optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Return the optimizers of student and teacher, which train the same network in turns."""
        return [self.optimizer(model.parameters()), self.teacher_optimizer(model.parameters())]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freeze the teacher after its epochs, and start the student from the original."""
        if self.teacher is None and trainer.current_epoch >= self.teacher_epochs:
            self.teacher = frozen_copy(self.model)
            self.model.load_state_dict(self.original)

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return cross-entropy; for the student with the distance to the teacher's attention."""
        trusted = batch["trusted"]
        if self.teacher is None:
            return F.cross_entropy(forward(trusted.image), trusted.label)
        with record_outputs(self.teacher, self.stages) as wanted, torch.no_grad():
            self.teacher(trusted.image)
        with record_outputs(self.model, self.stages) as own:
            loss = F.cross_entropy(forward(trusted.image), trusted.label)
        return loss + attention_loss(own, wanted, self.betas[-len(own) :])
