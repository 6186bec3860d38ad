"""SAU: unlearn adversarial examples that the model shares with the original (Wei et al., arXiv 2307.10562).

Re-implemented. Differs: trained on augmented images as the other methods are.
Shapes: B batch, C H W image, K classes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, ImageSet, Request
from unlearn.methods.components.distillation import frozen_copy
from unlearn.methods.components.trusted_training import TrustedMethod


def pixel_scale(data: ImageSet) -> Tensor:
    """Return the change of network input per unit of pixel values in [0, 1], (1, C, H, W)."""
    black = torch.zeros_like(data.image[:1])
    return data.view(torch.full_like(black, 255), data.index[:1]) - data.view(black, data.index[:1])


def compute_divergence(own: Tensor, other: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of two distributions given as logits (B, K), (B,)."""
    p, q = own.log_softmax(1), other.log_softmax(1)
    mean = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    parts = [F.kl_div(mean, x, reduction="none", log_target=True).sum(1) for x in (p, q)]
    return (parts[0] + parts[1]) / 2


def shared_loss(logits: Tensor, wrong: Tensor, active: Tensor) -> Tensor:
    """Return -sum over active images of log(1 - p(wrong class)) / B, a scalar."""
    others = logits.masked_fill(F.one_hot(wrong, logits.shape[1]).bool(), -torch.inf)
    rest = torch.logsumexp(others, 1) - torch.logsumexp(logits, 1)  # log(1 - p)
    return -(rest * active).sum() / len(logits)


class SAU(TrustedMethod):
    """Train against perturbations that fool the model and the original into the same class."""

    compilable: bool = False
    full_precision: ClassVar[bool] = True

    def __init__(
        self,
        *,
        radius: float,
        inner_steps: int,
        adversarial_weight: float,
        shared_weight: float,
        **recipe: Any,
    ) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            radius: Bound and step of the perturbation in units of pixels in [0, 1]; above 0.
            inner_steps: Maximum number of steps of the perturbation.
            adversarial_weight: Weight of fooling, relative to agreeing with the original.
            shared_weight: Weight of the loss on shared adversarial examples.
            recipe: Rounds (epochs), batch size, optimizer and schedule.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(**recipe)
        if radius <= 0 or inner_steps < 1:
            raise ValueError(
                f"method.radius must be above 0 and method.inner_steps at least 1, got {radius} and {inner_steps}"
            )
        if adversarial_weight < 0 or shared_weight < 0:
            raise ValueError(
                "method.adversarial_weight and method.shared_weight must be at least 0, "
                f"got {adversarial_weight} and {shared_weight}"
            )
        self.radius, self.inner_steps = radius, inner_steps
        self.adversarial_weight, self.shared_weight = adversarial_weight, shared_weight

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Freeze a copy of the original; return the model."""
        self.model = super().prepare(model, request)
        self.reference = frozen_copy(self.model)
        self.scale = pixel_scale(self.fit_set).to(next(self.model.parameters()).device)
        return self.model

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the network in eval mode."""
        self.model.eval()

    def perturb(self, image: Tensor, label: Tensor) -> Tensor:
        """Return a perturbation per image in pixel units, within the radius, (B, C, H, W)."""
        delta = torch.full_like(image, self.radius)
        for _ in range(self.inner_steps):
            delta.requires_grad_(True)
            own, other = (
                net(image + delta * self.scale).float() for net in (self.model, self.reference)
            )
            fooled, fooled_other = own.argmax(1) != label, other.argmax(1) != label
            shared = fooled & fooled_other & (own.argmax(1) == other.argmax(1))
            fooling = sum(
                -(F.cross_entropy(z, label, reduction="none") * ~done).sum() / (2 * len(label))
                for z, done in ((own, fooled), (other, fooled_other))
            )
            apart = (compute_divergence(own, other) * ~shared).sum() / len(label)
            (slope,) = torch.autograd.grad(self.adversarial_weight * fooling + apart, delta)
            delta = (delta - self.radius * slope.sign()).detach().clamp(-self.radius, self.radius)
        return delta.detach()

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return cross-entropy plus the loss on shared adversarial examples."""
        image, label = batch["trusted"].image, batch["trusted"].label
        moved = image + self.perturb(image, label) * self.scale
        with torch.no_grad():
            wrong = self.reference(moved).argmax(1)
            active = (wrong != label) & (wrong != self.reference(image).argmax(1))
        loss = F.cross_entropy(forward(image), label)
        return loss + self.shared_weight * shared_loss(forward(moved), wrong, active)
