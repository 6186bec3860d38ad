"""Saliency of weights and of inputs for a set of samples.

Shapes: B batch, P parameters.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearn.core.types import Batch, Forward, ImageSet
from unlearn.methods.components.losses import sample_losses
from unlearn.models.gradient_sums import gradient_sums, summed_cross_entropy
from unlearn.models.layers import get_trainable_parameters


def compute_summed_gradient(model: nn.Module, data: ImageSet, batch_size: int) -> dict[str, Tensor]:
    """Return the gradient of the summed cross-entropy on a set, in eval mode, by parameter name."""
    parameters = get_trainable_parameters(model)
    return gradient_sums(model, parameters, data.batches(batch_size), summed_cross_entropy)[0]


def compute_drifting_gradient(
    model: nn.Module,
    data: ImageSet,
    batch_size: int,
    optimizer: Callable[..., torch.optim.Optimizer],
) -> dict[str, Tensor]:
    """Return the sum of the gradients of a copy that takes ascent steps meanwhile, by name.

    Reproduces a defect of published code: the sum is not the gradient of a single model.
    """
    own = copy.deepcopy(model)
    parameters = get_trainable_parameters(own)
    climber = optimizer(own.parameters(), maximize=True)
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for batch in data.batches(batch_size):
        slope, sizes = gradient_sums(own, parameters, [batch], summed_cross_entropy)
        for name, parameter in parameters.items():
            parameter.grad = slope[name] / sizes[0]
            total[name] += parameter.grad
        climber.step()
    return total


def select_top_fraction(
    values: dict[str, Tensor], fraction: float, *, descending: bool = True
) -> dict[str, Tensor]:
    """Return masks of the round(fraction * P) largest values over all tensors together.

    Args:
        values: Saliency per parameter, by name.
        fraction: Share to select, in (0, 1]; at least one entry is selected.
        descending: Select the largest values; False: the smallest.
    """
    flat = torch.cat([v.flatten() for v in values.values()])
    count = max(1, round(fraction * len(flat)))
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[torch.argsort(flat, descending=descending, stable=True)[:count]] = True
    parts = chosen.split([v.numel() for v in values.values()])
    return {k: c.view(v.shape) for (k, v), c in zip(values.items(), parts, strict=True)}


def input_saliency_loss(forward: Forward, batch: Batch, found: Tensor, alpha: float) -> Tensor:
    """Return retain CE + alpha * mean over forget samples of the sum of x * dCE/dx, a scalar.

    Args:
        forward: The network.
        batch: Forget and retain samples.
        found: Whether a sample is in the forget set, bool (B,).
        alpha: Weight of the saliency, at least 0.
    """
    image = batch.image.detach().requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        loss = sample_losses(forward(image), batch.label)
    (slope,) = torch.autograd.grad((loss * found).sum(), image, create_graph=True)
    saliency = (image * slope).flatten(1).sum(1)
    stays = ~found
    kept = (loss * stays).sum() / stays.sum().clamp_min(1)
    return kept + alpha * (saliency * found).sum() / found.sum().clamp_min(1)
