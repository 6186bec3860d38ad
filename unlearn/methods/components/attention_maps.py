"""Attention maps of a network's stages (arXiv 1612.03928).

Shapes: B batch, C H W feature map, T tokens, D features of a token.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unlearn.models.surgery import eval_mode

TINY = 1e-6


def compute_attention_map(features: Tensor) -> Tensor:
    """Return sum over channels of squared features per position, of norm 1, (B, H * W) or (B, T)."""
    squares = features.float().pow(2)
    flat = squares.sum(1).flatten(1) if features.ndim == 4 else squares.sum(2)
    return flat / (flat.norm(dim=1, keepdim=True) + TINY)


def count_positions(output: object) -> tuple[int, ...] | None:
    """Return (H, W) or (T,) of a feature map with more than one position, else None."""
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return None
    size = tuple(output.shape[2:]) if output.ndim == 4 else (output.shape[1],)
    return size if torch.Size(size).numel() > 1 else None


def find_stages(model: nn.Module, image: Tensor, number: int) -> list[str]:
    """Return the modules whose outputs end the last ``number`` stages before pooling, by name.

    A stage ends with the last module of a spatial size; the network itself is none.

    Args:
        model: Any network.
        image: Example input, (B, C, H, W).
        number: Maximum number of stages.

    Raises:
        ValueError: If the network has no feature maps.
    """
    last: dict[tuple[int, ...], str] = {}
    handles = []
    for name, module in model.named_modules():

        def note_output(_: nn.Module, __: object, output: object, name: str = name) -> None:
            size = count_positions(output)
            if size is not None:
                last.pop(size, None)
                last[size] = name

        if name:
            handles.append(module.register_forward_hook(note_output))
    try:
        with eval_mode(model):
            model(image.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    if not last:
        raise ValueError(
            f"{type(model).__name__} has no feature maps to compare; choose method=ft_trusted"
        )
    return list(last.values())[-number:]


@contextmanager
def record_outputs(model: nn.Module, names: list[str]) -> Iterator[list[Tensor]]:
    """Collect the outputs of the named modules during forward passes, in the order of ``names``."""
    found: list[Tensor] = [torch.empty(0)] * len(names)
    handles = []
    for place, name in enumerate(names):

        def keep_output(_: nn.Module, __: object, output: Tensor, place: int = place) -> None:
            found[place] = output

        handles.append(model.get_submodule(name).register_forward_hook(keep_output))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
