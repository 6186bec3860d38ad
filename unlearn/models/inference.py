"""Inference over a set in eval mode, used by methods and by the evaluation.

Shapes: N samples, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, distributed, nn

from unlearn.core.types import ImageSet
from unlearn.models.surgery import eval_mode

_PART: ContextVar[tuple[int, int]] = ContextVar("part", default=(0, 1))


@contextmanager
def spread_inference(number: int, count: int) -> Iterator[None]:
    """Divide ``compute_logits`` among ``count`` processes of a group; this one is ``number``."""
    token = _PART.set((number, count))
    try:
        yield
    finally:
        _PART.reset(token)


def compute_logits(
    model: nn.Module,
    data: ImageSet,
    *,
    masked: bool = False,
    change: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 1024,
) -> Tensor:
    """Return the model's logits for a set, float32 (N, K), un-augmented, in eval mode.

    Args:
        model: Any classifier; an expanded one runs in base mode unless ``masked``.
        data: The images.
        masked: Run an expanded network in masked mode.
        change: Function applied to the normalised images, for example to add a trigger.
        batch_size: Images per forward pass.
    """
    device = next(model.parameters()).device
    number, count = _PART.get()
    if count > 1:
        batch_size = min(batch_size, max(1, -(-len(data) // count)))
    parts = []
    with eval_mode(model):
        for place, batch in enumerate(data.batches(batch_size)):
            if place % count != number:
                parts.append(torch.zeros(len(batch.label), data.num_classes, device=device))
                continue
            image = batch.image.to(device)
            image = change(image) if change else image
            extra = (batch.index.to(device),) if masked else ()
            parts.append(model(image, *extra).float())
    if not parts:
        return torch.zeros(0, data.num_classes)
    whole = torch.cat(parts)
    if count > 1:
        distributed.all_reduce(whole)  # every row is zero on all processes but one
    return whole


def compute_accuracy(model: nn.Module, data: ImageSet, *, masked: bool = False) -> float:
    """Return the accuracy on the given labels of a set, in [0, 1]."""
    predicted = compute_logits(model, data, masked=masked).argmax(1)
    return (predicted == data.label.to(predicted.device)).float().mean().item()


def compute_embedding(model: nn.Module, data: ImageSet, batch_size: int = 1024) -> Tensor:
    """Return the inputs of the model's last linear map, float32 (N, E), in eval mode.

    In the networks of this package, that is the pooled output of the last stage.

    Raises:
        ValueError: If the model has no linear map.
    """
    heads = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not heads:
        raise ValueError(f"{type(model).__name__} has no linear map whose inputs are the features")
    seen: list[Tensor] = []
    handle = heads[-1].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach().float().flatten(1).cpu())
    )
    try:
        with spread_inference(0, 1):  # the features of all images are seen here
            compute_logits(model, data, batch_size=batch_size)
    finally:
        handle.remove()
    return torch.cat(seen)
