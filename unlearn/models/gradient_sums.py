"""Sums of gradients over batches, used by all gradient criteria.

Shapes: B batch, K classes; a sum has the shape of its parameter.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch
from unlearn.models.surgery import eval_mode

Measure = Callable[[Tensor, Tensor], Tensor]
"""``measure(logits (B, K), label (B,))`` returns the scalar to differentiate."""


def summed_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Return the sum of the cross-entropies, a scalar."""
    return F.cross_entropy(logits, label, reduction="sum")


def gradient_sums(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    batches: Iterable[Batch],
    measure: Measure,
    each: Callable[[Tensor], Tensor] = lambda slope: slope,
) -> tuple[dict[str, Tensor], list[int]]:
    """Return the sums over batches of ``each(gradient)``, by name, and the batch sizes.

    In eval mode; gradients and batch-norm statistics of the model do not change.

    Args:
        model: Any classifier.
        parameters: Parameters to differentiate with respect to; each requires gradients.
        batches: Un-augmented batches, on any device.
        measure: Function of a batch's logits (float32) and labels.
        each: Function applied to a batch's gradient of one parameter.
    """
    device = next(model.parameters()).device
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    sizes = []
    with eval_mode(model), torch.enable_grad():
        for batch in batches:
            value = measure(model(batch.image.to(device)).float(), batch.label.to(device))
            slopes = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
            for sum_, slope in zip(total.values(), slopes, strict=True):
                sum_ += each(slope)
            sizes.append(len(batch.label))
    return total, sizes
