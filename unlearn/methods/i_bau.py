"""I-BAU: unlearn a universal perturbation of trusted images with an implicit hyper-gradient.

Zeng et al., arXiv 2110.03735. Re-implemented. Differs: one trusted set, never test images; the
perturbation is projected to a ball. Shapes: B batch, C H W image, K classes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.components.trusted_training import TrustedMethod


def solve_adjoint(step: Tensor, delta: Tensor, slope: Tensor, iterations: int) -> Tensor:
    """Return v after ``iterations`` of v <- (d step / d delta)^T v + slope from v = 0, like ``delta``.

    Its limit solves (1 - d step / d delta)^T v = slope (implicit differentiation of a fixed point).

    Args:
        step: One step of the inner problem as a function of ``delta``, with a graph.
        delta: The inner variable; requires gradients.
        slope: Gradient of the outer loss with respect to ``delta``.
        iterations: Number of iterations.
    """
    v = torch.zeros_like(slope)
    for _ in range(iterations):
        (pulled,) = torch.autograd.grad(step, delta, v, retain_graph=True)
        v = pulled + slope
    return v


def hypergradient_loss(outer: Tensor, step: Tensor, delta: Tensor, iterations: int) -> Tensor:
    """Return ``outer`` with a gradient that follows the inner fixed point as parameters change.

    Args:
        outer: Outer loss, a scalar function of the parameters and of ``delta``.
        step: One step of the inner problem, a function of both.
        delta: The inner variable, a leaf that requires gradients.
        iterations: Number of fixed-point iterations.
    """
    (slope,) = torch.autograd.grad(outer, delta, retain_graph=True)
    response = (step * solve_adjoint(step, delta, slope, iterations)).sum()
    return outer + response - response.detach()


class IBAU(TrustedMethod):
    """In every round: find a perturbation that changes predictions, then train against it."""

    compilable: bool = False
    full_precision: ClassVar[bool] = True

    def __init__(
        self,
        *,
        inner_lr: float,
        penalty: float,
        max_norm: float,
        perturbed_fraction: float,
        fixed_point_lr: float,
        iterations: int,
        seed: int,
        **recipe: Any,
    ) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            inner_lr: Step size of the perturbation, above 0.
            penalty: Weight of the perturbation's squared norm, at least 0.
            max_norm: Maximum norm of the perturbation of network input, above 0.
            perturbed_fraction: Share of a batch that is perturbed in the outer loss, in (0, 1].
            fixed_point_lr: Step size of the fixed point, above 0.
            iterations: Number of fixed-point iterations.
            seed: Seed of the perturbed images.
            recipe: Rounds (epochs), batch size, optimizer and schedule.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(**recipe)
        positive = {"inner_lr": inner_lr, "max_norm": max_norm, "fixed_point_lr": fixed_point_lr}
        for key, value in positive.items():
            if value <= 0:
                raise ValueError(f"method.{key} must be above 0, got {value}")
        if penalty < 0 or not 0 < perturbed_fraction <= 1 or iterations < 1:
            raise ValueError(
                "method.penalty must be at least 0, method.perturbed_fraction in (0, 1] and "
                f"method.iterations at least 1, got {penalty}, {perturbed_fraction}, {iterations}"
            )
        self.inner_lr, self.penalty, self.max_norm = inner_lr, penalty, max_norm
        self.perturbed_fraction, self.fixed_point_lr = perturbed_fraction, fixed_point_lr
        self.iterations, self.seed = iterations, seed

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Keep the first trusted batch for the inner problem; return the model."""
        self.model = super().prepare(model, request)
        self.generator = torch.Generator().manual_seed(self.seed)
        return self.model

    def inner_loss(self, image: Tensor, delta: Tensor) -> Tensor:
        """Return -CE of perturbed images to the model's own predictions + penalty * |delta|^2."""
        with torch.no_grad():
            own = self.model(image).argmax(1)
        loss = -F.cross_entropy(self.model(image + delta).float(), own)
        return loss + self.penalty * delta.square().sum()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the round's perturbation in one pass over the trusted set, in eval mode."""
        self.model.eval()
        device = next(self.model.parameters()).device
        batches = [b.image.to(device) for b in self.fit_set.batches(self.batch_size)]
        self.first = batches[0]
        delta = torch.zeros_like(self.first[:1])
        for image in batches:
            delta.requires_grad_(True)
            (slope,) = torch.autograd.grad(self.inner_loss(image, delta), delta)
            delta = self.project(delta.detach() - self.inner_lr * slope)
        self.delta = delta

    def project(self, delta: Tensor) -> Tensor:
        """Return the perturbation scaled to at most the maximum norm."""
        return delta * (self.max_norm / delta.norm().clamp_min(1e-12)).clamp(max=1)

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the outer loss with the hyper-gradient of the round's perturbation."""
        trusted = batch["trusted"]
        delta = self.delta.detach().clone().requires_grad_(True)
        chosen = self._draw_rows(len(trusted.label)).to(delta.device)[:, None, None, None]
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            outer = F.cross_entropy(forward(trusted.image + chosen * delta), trusted.label)
            inner = self.inner_loss(self.first, delta)
            (slope,) = torch.autograd.grad(inner, delta, create_graph=True)
            step = delta - self.fixed_point_lr * slope
            return hypergradient_loss(outer, step, delta, self.iterations)

    def _draw_rows(self, size: int) -> Tensor:
        """Return which images of a batch are perturbed, float (B,)."""
        count = max(1, int(self.perturbed_fraction * size))
        chosen = torch.zeros(size)
        chosen[torch.randperm(size, generator=self.generator)[:count]] = 1
        return chosen
