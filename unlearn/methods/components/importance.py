"""Importance of each weight for a set of images, and dampening of selected weights.

Pure functions of SSD (arXiv 2308.07707) and its variants LFSSD (2402.19308), ASSD (2402.10098) and
Potion (2406.09173). Importances are dictionaries from a parameter's name to a tensor of its shape.
Shapes: B batch, N samples, K classes, P weights of all parameters.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, ImageSet
from unlearn.models.gradient_sums import Measure, gradient_sums

Importance = dict[str, Tensor]


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean cross-entropy."""
    return F.cross_entropy(logits, label)


def squared_logit_norm(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean squared Euclidean norm of the logits; labels are not used."""
    return logits.square().sum(1).mean()


def logit_norm(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean Euclidean norm of the logits; labels are not used."""
    return torch.linalg.vector_norm(logits, dim=1).mean()


def iterate_shuffled_batches(data: ImageSet, batch_size: int, seed: int) -> Iterator[Batch]:
    """Yield each sample once in random order, since stored samples may be sorted by class."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    yield from data.select_batches(order.to(data.label.device).split(batch_size))


def compute_importance(
    model: nn.Module, data: ImageSet, *, measure: Measure, power: int, batch_size: int, seed: int
) -> Importance:
    """Return the mean over batches of |gradient of the batch's measure| ** power.

    Gradients are taken after the mean over a batch, so the batch size matters. One pass in eval
    mode, un-augmented; gradients and batch-norm statistics of the model do not change.

    Args:
        model: Any classifier; weights that do not require gradients are skipped.
        data: The images.
        measure: Function to differentiate, a mean over the batch.
        power: 2: square of each batch's gradient; 1: absolute value.
        batch_size: B; the last batch may be smaller and has the same weight as the others.
        seed: Seed of the assignment of samples to batches.
    """
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    batches = iterate_shuffled_batches(data, batch_size, seed)
    total, sizes = gradient_sums(model, weights, batches, measure, lambda g: g.abs() ** power)
    return {name: sum_ / len(sizes) for name, sum_ in total.items()}


def compute_sorted_ratios(forget: Importance, retain: Importance) -> Tensor:
    """Return all finite forget / retain ratios in ascending order, without 0/0 and x/0."""
    ratio = torch.cat([(forget[name] / retain[name]).flatten() for name in forget])
    return ratio[ratio.isfinite()].sort().values


def percentile(ascending: Tensor, percent: float) -> float:
    """Return a percentile with linear interpolation.

    Args:
        ascending: Sorted values, (P,); torch.quantile supports at most 16 million.
        percent: In [0, 100].

    Raises:
        ValueError: If there is no value.
    """
    if not len(ascending):
        raise ValueError(
            "no weight matters to both the forget and the retain set (all gradients are zero or "
            "not finite), so alpha cannot be computed; use method=ssd and set method.alpha"
        )
    place = percent / 100 * (len(ascending) - 1)
    low = math.floor(place)
    below, above = ascending[[low, math.ceil(place)]].double().tolist()
    return below + (place - low) * (above - below)


def compute_undampened_percentile(phi: float) -> float:
    """Return P = 100 - ln(1 + 100 phi), the percentile of ratios that is not dampened (ASSD).

    Args:
        phi: Size of the forget set as a share of the training set, >= 0.
    """
    return max(0.0, 100 - math.log(1 + 100 * phi))


def dampen_weight(
    weight: Tensor, forget: Tensor, retain: Tensor, *, alpha: float, lambda_: float
) -> Tensor:
    """Return the weights, with selected ones dampened (SSD, eq. 3 and 4).

    Args:
        weight: Any shape.
        forget: Importance for the forget set, like ``weight``.
        retain: Importance for the retain set, like ``weight``.
        alpha: Weights with forget > alpha * retain are selected, >= 0.
        lambda_: Selected weights are multiplied by min(1, lambda_ * retain / forget), >= 0.
    """
    factor = (lambda_ * retain / forget).clamp(max=1)
    return torch.where(forget > alpha * retain, weight * factor, weight)
