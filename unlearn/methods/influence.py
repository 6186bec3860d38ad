"""Influence unlearning, WoodFisher form: one Newton step away from the forget set.

After arXiv 2304.04934 (its baseline IU) with the inverse of arXiv 2004.14340. Re-implemented; differs:
the retain samples of the inverse are visited in a seeded random order. Shapes: P weights.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from unlearn.core.types import ImageSet, Request
from unlearn.methods.components.one_shot import OneShot
from unlearn.models.gradient_sums import gradient_sums, summed_cross_entropy
from unlearn.models.layers import get_trainable_parameters


def compute_leave_out_gradient(forget: Tensor, retain: Tensor, counts: tuple[int, int]) -> Tensor:
    """Return the gradient of removing the forget set from the mean loss, (P,).

    Args:
        forget: Sum of the gradients of the forget set, (P,).
        retain: Sum of the gradients of the retain set, (P,).
        counts: Number of forget and retain samples.
    """
    n_forget, n_retain = counts
    total = n_forget + n_retain
    return forget / total - retain * (n_forget / (total * n_retain))


def compute_inverse_fisher_product(start: Tensor, slopes: Iterable[Tensor], count: int) -> Tensor:
    """Return an estimate of the inverse Fisher matrix times a vector, (P,), by WoodFisher.

    Args:
        start: The vector, (P,).
        slopes: Gradients of single samples, (P,) each.
        count: N of the recursion (damping), at least the number of samples.
    """
    product, own = start.clone(), torch.zeros_like(start)
    for i, slope in enumerate(slopes):
        if i == 0:
            own = slope.clone()
            continue
        scale = torch.dot(own, slope)
        product -= torch.dot(product, slope) / (count + scale) * own
        own -= scale / (count + scale) * own
    return product


class Influence(OneShot):
    """Move the weights once, along the influence of the forget set."""

    def __init__(self, *, alpha: float, num_samples: int, batch_size: int, seed: int) -> None:
        """Store the options.

        Args:
            alpha: Step size, at least 0.
            num_samples: Maximum number of retain samples for the inverse, and its N.
            batch_size: B of the gradients of both sets.
            seed: Seed of the order of these samples.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(batch_size=batch_size)
        if not alpha >= 0:
            raise ValueError(f"method.alpha must be at least 0, got {alpha}")
        if num_samples < 1:
            raise ValueError(f"method.num_samples must be at least 1, got {num_samples}")
        self.alpha = alpha
        self.num_samples = num_samples
        self.seed = seed

    def edit_model(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the model after the step."""
        sums = [
            self._compute_flat_gradient(model, data) for data in (request.forget, request.retain)
        ]
        start = compute_leave_out_gradient(*sums, counts=(len(request.forget), len(request.retain)))
        step = compute_inverse_fisher_product(
            start, self._iterate_sample_gradients(model, request.retain), self.num_samples
        )
        weights = list(get_trainable_parameters(model).values())
        with torch.no_grad():
            for weight, part in zip(weights, step.split([w.numel() for w in weights]), strict=True):
                weight += self.alpha * part.view(weight.shape)
        self.notes["step_norm"] = (self.alpha * step).norm().item()
        return model

    def _compute_flat_gradient(self, model: nn.Module, data: ImageSet) -> Tensor:
        """Return the gradient of the summed cross-entropy in eval mode, (P,)."""
        parameters, batches = get_trainable_parameters(model), data.batches(self.batch_size)
        found = gradient_sums(model, parameters, batches, summed_cross_entropy)[0]
        return torch.cat([slope.flatten() for slope in found.values()])

    def _iterate_sample_gradients(self, model: nn.Module, data: ImageSet) -> Iterator[Tensor]:
        """Yield the gradients (P,) of single samples in random order."""
        generator = torch.Generator().manual_seed(self.seed)
        for row in torch.randperm(len(data), generator=generator)[: self.num_samples]:
            yield self._compute_flat_gradient(model, data.rows(row[None].to(data.label.device)))
