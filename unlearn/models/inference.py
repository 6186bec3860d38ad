"""Inference over a set in eval mode, used by methods and by the evaluation.

Shapes: N samples, K classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlearn.core.types import ImageSet
from unlearn.models.surgery import eval_mode


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
    parts = []
    with eval_mode(model):
        for batch in data.batches(batch_size):
            image = batch.image.to(device)
            image = change(image) if change else image
            extra = (batch.index.to(device),) if masked else ()
            parts.append(model(image, *extra).float())
    return torch.cat(parts) if parts else torch.zeros(0, data.num_classes)


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
        compute_logits(model, data, batch_size=batch_size)
    finally:
        handle.remove()
    return torch.cat(seen)
