"""Gradient magnitudes of forget and retain set per layer, and their cosine similarity.

After arXiv 2307.09542; re-implemented. Shapes: a gradient has the shape of its parameter.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.mean_gradients import compute_mean_gradient

Groups = Mapping[str, Sequence[str]]
"""Names of the parameters of each layer, by the layer's name, the input's first."""


def gradient_magnitude(gradient: Mapping[str, Tensor], names: Sequence[str]) -> float:
    """Return the sum over some parameters of |gradient| / sqrt(its number of entries)."""
    return sum((gradient[n].double().norm() / gradient[n].numel() ** 0.5).item() for n in names)


def mean_cosine(
    one: Mapping[str, Tensor], two: Mapping[str, Tensor], names: Sequence[str]
) -> float:
    """Return the mean over some parameters of the cosine between two gradients, in [-1, 1].

    A parameter with a zero gradient on either side is excluded; NaN if all are.
    """
    found = []
    for name in names:
        a, b = one[name].double().flatten(), two[name].double().flatten()
        size = (a.norm() * b.norm()).item()
        if size > 0:
            found.append((torch.dot(a, b) / size).item())
    return sum(found) / len(found) if found else math.nan


def measure_layer_gradients(
    model: nn.Module, request: Request, groups: Groups, batch_size: int
) -> dict[str, dict[str, float]]:
    """Return per layer "forget" and "retain", the gradient magnitudes, and their "cosine".

    Args:
        model: Any classifier; not modified.
        request: The two sets with given labels; the gradient is that of the mean cross-entropy.
        groups: The layers.
        batch_size: Images per pass; does not affect the result.
    """
    forget, retain = (
        compute_mean_gradient(model, part, batch_size=batch_size)
        for part in (request.forget, request.retain)
    )
    return {
        layer: {
            "forget": gradient_magnitude(forget, names),
            "retain": gradient_magnitude(retain, names),
            "cosine": mean_cosine(forget, retain, names),
        }
        for layer, names in groups.items()
    }
