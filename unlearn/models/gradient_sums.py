"""The one pass over batches that every gradient criterion makes.

Shapes: B batch, K classes; a sum has the shape of its parameter.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch
from unlearn.models.surgery import eval_mode

Measure = Callable[[Tensor, Tensor], Tensor]
"""``measure(logits (B, K), label (B,))``: the scalar that is differentiated."""


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
    """Return the sums over batches of ``each`` gradient, by name, and the sizes of the batches.

    In eval mode; neither gradients nor batch-norm statistics are left behind in the model.

    Args:
        model: Any classifier.
        parameters: What to differentiate by; each asks for a gradient.
        batches: Un-augmented, on any device.
        measure: Of a batch's logits (float32) and labels.
        each: Applied to a batch's gradient of one parameter.
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
