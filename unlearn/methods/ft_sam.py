"""FT-SAM: fine-tune on a trusted set with adaptive sharpness-aware minimisation.

Zhu et al., arXiv 2304.11823. Re-implemented. Differs: the learning rate runs through one period, where
the reference code steps its schedule per batch. Shapes: B batch, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.components.trusted_training import TrustedMethod

TINY = 1e-12


def compute_adaptive_ascent(
    weights: Sequence[Tensor], slopes: Sequence[Tensor], radius: float
) -> list[Tensor]:
    """Return radius * w^2 g / || |w| g ||, with one norm over all tensors.

    The result e has || e / |w| || = radius; weights of 0 stay.

    Args:
        weights: Parameters.
        slopes: Their gradients.
        radius: Radius of the ascent, relative to the weights.
    """
    scaled = [w.detach().abs() * g for w, g in zip(weights, slopes, strict=True)]
    norm = torch.stack([part.norm() for part in scaled]).norm() + TINY
    return [radius * w.detach().abs() * s / norm for w, s in zip(weights, scaled, strict=True)]


class FtSam(TrustedMethod):
    """Minimise the loss at the worst point near the weights."""

    compilable: bool = False
    full_precision: ClassVar[bool] = True

    def __init__(self, *, radius: float, label_smoothing: float, **recipe: Any) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            radius: Radius of the ascent relative to the weights, the paper's rho; at least 0.
            label_smoothing: Probability of all other classes together, in [0, 1).
            recipe: Epochs, batch size, optimizer and schedule.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(**recipe)
        if radius < 0:
            raise ValueError(f"method.radius must be at least 0, got {radius}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"method.label_smoothing must be in [0, 1), got {label_smoothing}")
        self.radius, self.label_smoothing = radius, label_smoothing

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the model."""
        self.model = super().prepare(model, request)
        k = self.fit_set.num_classes
        self.torch_smoothing = min(1.0, self.label_smoothing * k / max(1, k - 1))
        return self.model

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss at the perturbed weights; its gradient is that of the step.

        The first pass updates batch-norm statistics, the second one does not.
        """
        trusted = batch["trusted"]
        weights = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        slopes = torch.autograd.grad(
            self._criterion(forward(trusted.image), trusted.label),
            list(weights.values()),
            materialize_grads=True,
        )
        moves = compute_adaptive_ascent(list(weights.values()), slopes, self.radius)
        state = {n: w + e for (n, w), e in zip(weights.items(), moves, strict=True)}
        state |= {n: b.clone() for n, b in self.model.named_buffers()}
        logits = functional_call(self.model, state, (trusted.image,))
        return self._criterion(logits.float(), trusted.label)

    def _criterion(self, logits: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(logits, label, label_smoothing=self.torch_smoothing)
