"""Mean gradient over a set, shared by all gradient criteria (arXiv 2412.02432, 2310.12508).

Gradients are summed with their signs and weighted by the size of their batch, so that the result
does not depend on the batch size; the absolute value is taken once, by the criterion.
Shapes: B batch; a gradient has the shape of its parameter.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unlearn.core.stored_images import StoredImages
from unlearn.core.types import Batch, ImageSet, InputView, Request, join_sets
from unlearn.models.gradient_sums import gradient_sums, summed_cross_entropy
from unlearn.models.layers import get_trainable_parameters

ImageAugmentation = Callable[[Tensor, torch.Generator], Tensor]
"""Augmentation of stored images (uint8, (N, C, H, W)) with a generator."""

ACCUMULATE_MODES = ("signed", "absolute")
DATA_PARTS = ("forget", "retain", "all")


def compute_mean_gradient(
    model: nn.Module,
    data: ImageSet,
    *,
    batch_size: int,
    accumulate: str = "signed",
    drop_last: bool = False,
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy on a set, by parameter name.

    In eval mode and un-augmented; weights, statistics, modes and gradients do not change.

    Args:
        model: Any classifier.
        data: The samples, labels as given.
        batch_size: B.
        accumulate: "signed", or "absolute" to sum the absolute values of the batch gradients.
        drop_last: Drop an incomplete last batch, as the reference code does.

    Raises:
        ValueError: If no batch is left.
    """
    total, sizes = gradient_sums(
        model,
        get_trainable_parameters(model),
        _iterate_batches(data, batch_size, drop_last),
        summed_cross_entropy,
        lambda slope: slope.abs() if accumulate == "absolute" else slope,
    )
    if not sizes:
        raise ValueError(f"drop_last leaves none of {len(data)} samples at batch_size={batch_size}")
    return {name: sum_ / sum(sizes) for name, sum_ in total.items()}


def _iterate_batches(data: ImageSet, batch_size: int, drop_last: bool) -> Iterator[Batch]:
    if drop_last:
        whole = len(data) // batch_size * batch_size
        data = data.rows(torch.arange(whole, device=data.label.device))
    yield from data.batches(batch_size)


def augment_images(data: ImageSet, augment: ImageAugmentation, seed: int) -> ImageSet:
    """Return the set with its images augmented once, as in one training epoch.

    Args:
        data: The samples.
        augment: Called with uint8 images (N, C, H, W) and a generator.
        seed: Seed of the generator.
    """
    if isinstance(data.image, StoredImages):
        return replace(data, view=_AugmentedView(data.view, augment, seed))
    generator = torch.Generator(data.image.device).manual_seed(seed)
    return replace(data, image=augment(data.image, generator))


@dataclass(frozen=True)
class _AugmentedView:
    """An input view that augments each batch, drawn by its first sample: stored images are large."""

    view: InputView
    augment: ImageAugmentation
    seed: int

    def __call__(self, image: Tensor, index: Tensor) -> Tensor:
        """Return network input, float (B, C, H, W)."""
        generator = torch.Generator(image.device)
        generator.manual_seed(self.seed * 1_000_003 + int(index[0]))
        return self.view(self.augment(image, generator), index)


def get_image_set(request: Request, name: str) -> ImageSet:
    """Return the forget set, the retain set or both."""
    if name == "all":
        return join_sets(request.forget, request.retain)
    return request.forget if name == "forget" else request.retain
