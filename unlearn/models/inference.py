"""Inference over a set in eval mode, used by methods and by the evaluation.

Shapes: N samples, K classes, B batch.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from unlearn.core.types import Batch, ImageSet
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


log = logging.getLogger(__name__)

BATCH_SIZE = 1024
"""Images per forward pass at most."""

BATCH_BYTES = 64 * 2**20
"""Bytes of network input per forward pass, by default."""


@dataclass
class _BatchLimit:
    """Limits of this process; ``images`` falls when memory runs out."""

    bytes: int = BATCH_BYTES
    images: int = BATCH_SIZE


_limit = _BatchLimit()


def limit_batch_bytes(size: int | None) -> None:
    """Set the bytes of network input per forward pass for the rest of the process; None: default.

    Raises:
        ValueError: If it is below 1.
    """
    if size is not None and size < 1:
        raise ValueError(f"trainer.evaluation_batch_bytes must be at least 1, got {size}")
    size = BATCH_BYTES if size is None else size
    if size != _limit.bytes:
        _limit.bytes, _limit.images = size, BATCH_SIZE


def get_batch_size(data: ImageSet) -> int:
    """Return the images per forward pass: at most ``BATCH_SIZE``, fewer of large images."""
    each = 4 * data.image.shape[1:].numel()  # float32
    return max(1, min(_limit.images, _limit.bytes // each))


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an allocation failed, on a CPU or a GPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(said in text for said in ("can't allocate memory", "not enough memory"))
    )


def compute_logits(
    model: nn.Module,
    data: ImageSet,
    *,
    masked: bool = False,
    change: Callable[[Tensor], Tensor] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Return the model's logits for a set, float32 (N, K), un-augmented, in eval mode.

    Args:
        model: Any classifier; an expanded one runs in base mode unless ``masked``.
        data: The images.
        masked: Run an expanded network in masked mode.
        change: Function applied to the normalised images, for example to add a trigger.
        batch_size: Images per forward pass; None: ``get_batch_size``. It is halved if memory runs
            out.
    """

    def forward(batch: Batch) -> Tensor:
        image = change(batch.image) if change else batch.image
        return model(image, *((batch.index,) if masked else ())).float()

    device = next(model.parameters()).device
    number, count = _PART.get()
    if count > 1:
        return _compute_part(forward, model, data, device, number, count)
    with eval_mode(model):
        parts = list(_map_batches(forward, data, batch_size, device))
    return torch.cat(parts) if parts else torch.zeros(0, data.num_classes)


def _compute_part(
    forward: Callable[[Batch], Tensor],
    model: nn.Module,
    data: ImageSet,
    device: torch.device,
    number: int,
    count: int,
) -> Tensor:
    """Return the logits of all images, of which each process of a group computes a part."""
    size = min(get_batch_size(data), max(1, -(-len(data) // count)))
    parts = []
    with eval_mode(model):
        for place, batch in enumerate(data.batches(size, 0, device)):
            own = place % count == number
            empty = torch.zeros(len(batch.label), data.num_classes, device=device)
            parts.append(forward(batch) if own else empty)
    if not parts:
        return torch.zeros(0, data.num_classes)
    whole = torch.cat(parts)
    distributed.all_reduce(whole)  # every row is zero on all processes but one
    return whole


def _map_batches(
    forward: Callable[[Batch], Tensor],
    data: ImageSet,
    batch_size: int | None,
    device: torch.device,
) -> Iterator[Tensor]:
    """Yield the result (B, ...) of each batch of a set; halve batches when memory runs out."""
    size, done = batch_size or get_batch_size(data), 0
    while done < len(data):
        try:
            for batch in data.batches(size, done, device):
                out = forward(batch)
                done += len(batch.label)
                del batch  # before the next one is read
                yield out
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        else:
            continue
        size = _halve_batches(size)  # outside of ``except``: the error keeps the batch alive
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _halve_batches(size: int) -> int:
    """Return half of a batch size, and use at most that many images from now on."""
    half = size // 2
    if half < _limit.images:
        _limit.images = half
        log.warning(
            "evaluation in batches of %d images instead of %d: memory ran out "
            "(trainer.evaluation_batch_bytes sets the size)",
            half,
            size,
        )
    return half


def compute_accuracy(model: nn.Module, data: ImageSet, *, masked: bool = False) -> float:
    """Return the accuracy on the given labels of a set, in [0, 1]."""
    predicted = compute_logits(model, data, masked=masked).argmax(1)
    return (predicted == data.label.to(predicted.device)).float().mean().item()


def compute_embedding(model: nn.Module, data: ImageSet, batch_size: int | None = None) -> Tensor:
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

    def forward(batch: Batch) -> Tensor:
        seen.clear()
        model(batch.image)
        return torch.cat(seen)

    try:
        with eval_mode(model):
            device = next(model.parameters()).device
            return torch.cat(list(_map_batches(forward, data, batch_size, device)))
    finally:
        handle.remove()
