"""Position of a group's channels in a tensor, and where a function of one tensor moves it.

Shapes: B batch, c channels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FLAT = {"flatten", "view", "reshape"}


@dataclass(frozen=True)
class ChannelLabel:
    """Position of a group's channels in a tensor: dimension ``dim``, ``times`` entries each."""

    group: int
    dim: int
    times: int = 1


def move_label(
    name: str, given: Tensor, out: Tensor, label: ChannelLabel, args: tuple[Any, ...]
) -> ChannelLabel | None:
    """Return the position of the channels after a function of one tensor; None if unknown."""
    before, after, dim = given.shape, out.shape, label.dim
    if name == "permute":
        order = args[1] if isinstance(args[1], tuple | list | torch.Size) else args[1:]
        return ChannelLabel(label.group, [d % given.ndim for d in order].index(dim), label.times)
    if name in ("transpose", "swapaxes"):
        a, b = (int(d) % given.ndim for d in args[1:3])
        return ChannelLabel(label.group, {a: b, b: a}.get(dim, dim), label.times)
    if name in FLAT and before != after:
        # Trailing dimensions are merged into the channels, so that new channels come last.
        rest = before[dim:].numel()
        if after[:dim] == before[:dim] and len(after) == dim + 1 and after[dim] == rest:
            return ChannelLabel(label.group, dim, label.times * rest // before[dim])
        flat = before[dim + 1 :].numel()
        if after[: dim + 1] == before[: dim + 1] and after[dim + 1 :].numel() == flat:
            return label
        return None
    if before == after:
        return label  # assumed elementwise; the trial of the grown network detects other cases
    if given.ndim == out.ndim and before[: dim + 1] == after[: dim + 1] and dim <= 1:
        return label  # pooling, resizing
    if given.ndim > out.ndim and dim == 1 and after == before[: len(after)] and len(after) == 2:
        return label  # mean over height and width
    if given.ndim == out.ndim + 1 and dim == given.ndim - 1 and after[-1] == before[-1]:
        return ChannelLabel(label.group, out.ndim - 1, label.times)  # one token, or the mean of all
    return None
