"""Arguments of a call in Python in their usual forms: NumPy arrays, masks, devices, scales.

Shapes: N samples, C H W image.
"""

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlearn.data.datasets.in_memory import stack_images

CHANNELS = (1, 3, 4)
DEVICES = {"cuda": "gpu"}


class ArrayPairs:
    """A ``Dataset`` of pairs whose images are NumPy arrays, as tensors."""

    def __init__(self, data: Any) -> None:
        """Store the ``Dataset``."""
        self.data = data

    def __len__(self) -> int:
        """Return N."""
        return len(self.data)

    def __getitem__(self, place: int) -> Any:
        """Return the pair at a place, its image as a tensor or as it is."""
        pair = self.data[place]
        if isinstance(pair, tuple | list) and pair and isinstance(pair[0], np.ndarray):
            return (torch.from_numpy(np.ascontiguousarray(pair[0])), *pair[1:])
        return pair


def read_pairs(data: Any, what: str) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W), uint8 or float32, and labels int64 (N,), checked.

    Args:
        data: A pair of tensors or NumPy arrays, or a ``Dataset``.
        what: Name of the argument in messages.

    Raises:
        ValueError: If they are neither, or images or labels are of a wrong shape, type or value.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and _is_array(data[0]):
        image, label = _to_tensor(data[0]), _to_tensor(data[1])
        _check_types(image, label, what)
        data = (image, label)
    elif isinstance(data, Sized) and not isinstance(data, Mapping | str | bytes | np.ndarray):
        data = ArrayPairs(data) if len(data) and hasattr(data, "__getitem__") else data
    image, label = stack_images(data, what)
    _check_layout(image, what)
    if image.is_floating_point() and not bool(image.isfinite().all()):
        broken = (~image.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(
            f"{what}: {len(broken)} of {len(image)} images hold NaN or infinite values, "
            f"first at position {broken[0]}"
        )
    return image, label


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _to_tensor(value: Any) -> Tensor:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    return torch.as_tensor(value)


def _check_types(image: Tensor, label: Tensor, what: str) -> None:
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(
            f"{what}: images must be uint8 in 0..255 or floating-point network input, "
            f"got {str(image.dtype).removeprefix('torch.')}"
        )
    if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise ValueError(
            f"{what}: labels must be whole numbers (N,), got "
            f"{str(label.dtype).removeprefix('torch.')} {tuple(label.shape)}"
        )


def _check_layout(image: Tensor, what: str) -> None:
    """Check that channels come first.

    Raises:
        ValueError: If they come last, with the remedy.
    """
    _, c, h, w = image.shape
    if w in CHANNELS and c not in CHANNELS and h not in CHANNELS:
        raise ValueError(
            f"{what}: images are (N, H, W, C) = {tuple(image.shape)}, but must be (N, C, H, W): "
            "use images.permute(0, 3, 1, 2), or images.transpose(0, 3, 1, 2) for NumPy"
        )


def read_indices(forget: Any) -> Any:
    """Return ids as an int64 tensor (n,) if ``forget`` is an array; else as it is.

    Args:
        forget: A one-dimensional array or tensor of ids, or a bool mask (N,) of the retain set.

    Raises:
        ValueError: If it is an array of another type.
    """
    if (
        isinstance(forget, list | tuple)
        and forget
        and all(isinstance(x, np.integer) for x in forget)
    ):
        return torch.tensor([int(x) for x in forget])
    if not _is_array(forget):
        return forget
    ids = _to_tensor(forget)
    if ids.ndim == 1 and ids.dtype == torch.bool:
        return ids.nonzero().flatten().cpu()
    if ids.ndim != 1 or ids.is_floating_point():
        raise ValueError(
            f"forget: an array must hold ids, whole numbers (n,), or a bool mask (N,); got "
            f"{str(ids.dtype).removeprefix('torch.')} {tuple(ids.shape)}"
        )
    return ids.long().cpu()


def find_accelerator(device: Any) -> str:
    """Return the accelerator of a device: auto, cpu or gpu.

    Args:
        device: "auto", "cpu", "gpu", "cuda", "cuda:0", or a ``torch.device``.

    Raises:
        ValueError: If it is anything else, or a GPU other than the first.
    """
    name, _, number = str(device).partition(":")
    name = DEVICES.get(name, name)
    if name not in ("auto", "cpu", "gpu"):
        raise ValueError(f"device must be auto, cpu, gpu or cuda, got {device}")
    if name == "gpu" and number not in ("", "0"):
        raise ValueError(
            f"device={device}: the first visible GPU is used; set CUDA_VISIBLE_DEVICES={number}"
        )
    return name


def read_scale(value: Any, name: str, channels: int | None = None) -> tuple[float, ...] | None:
    """Return channel means or deviations as a tuple; None if not given.

    Args:
        value: C values: a sequence, an array or a tensor.
        name: mean or std.
        channels: C, if known.

    Raises:
        ValueError: If it is not a sequence, or its length is not C.
    """
    if value is None:
        return None
    example = f"{name}=({', '.join(['0.5'] * (channels or 3))}{',' * (channels == 1)})"
    if isinstance(value, int | float | str) or not isinstance(
        value, Sequence | np.ndarray | Tensor
    ):
        raise ValueError(f"{name} must hold one value per channel, such as {example}, got {value}")
    values = tuple(float(v) for v in value)
    if channels is not None and len(values) != channels:
        raise ValueError(
            f"{name} must hold one value for each of {channels} "
            f"channel{'s' * (channels != 1)}, such as {example}, got {len(values)}"
        )
    return values
