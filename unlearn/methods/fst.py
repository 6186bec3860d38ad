"""FST: shift the features by pushing a new classifier away from the original one.

Min et al., arXiv 2310.01875. Re-implemented. Differs: the cosine schedule moves per step.
Shapes: B batch, K classes, E features.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.components.classifier_head import find_head
from unlearn.methods.components.lookup_tensors import BufferDict
from unlearn.methods.components.trusted_training import TrustedMethod


class FST(TrustedMethod):
    """Train all layers with a classifier that is drawn anew and kept at the original's norm."""

    stackable = True
    full_precision: ClassVar[bool] = False

    def __init__(self, *, alpha: float, seed: int, **recipe: Any) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            alpha: Weight of the inner product of new and original classifier, at least 0.
            seed: Seed of the new classifier.
            recipe: Epochs, batch size, optimizer and schedule.

        Raises:
            ValueError: If alpha is negative.
        """
        super().__init__(**recipe)
        if alpha < 0:
            raise ValueError(f"method.alpha must be at least 0, got {alpha}")
        self.alpha, self.seed = alpha, seed

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Check that the network ends in a linear map."""
        find_head(model)

    @torch.no_grad()
    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Keep the classifier and draw a new one, uniform in +-1/sqrt(E); return the model."""
        model = super().prepare(model, request)
        self.classifier = find_head(model)[1]
        weight = self.classifier.weight
        self.held = BufferDict(original=weight.detach().clone(), norm=weight.norm().clone())
        self.notes["head_norm"] = weight.norm().item()
        generator, bound = torch.Generator().manual_seed(self.seed), weight.shape[1] ** -0.5
        for part in self.classifier.parameters(recurse=False):
            drawn = torch.rand(part.shape, generator=generator)
            part.copy_((2 * drawn - 1) * bound)
        self.project_head()
        return model

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the original classifier."""
        return {"held": self.held}

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return cross-entropy plus alpha times the inner product of both classifiers."""
        trusted = batch["trusted"]
        near = (self.classifier.weight * self.held["original"]).sum()
        return F.cross_entropy(forward(trusted.image), trusted.label) + self.alpha * near

    @torch.no_grad()
    def project_head(self) -> None:
        """Scale the classifier's weight to the norm of the original one."""
        weight = self.classifier.weight
        weight.mul_(self.held["norm"].to(weight.device) / weight.norm())

    def on_train_batch_end(self, *_: Any) -> None:  # type: ignore[override]
        """Project the classifier after the step."""
        self.project_head()
