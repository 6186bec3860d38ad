"""Images passed in Python: tensors or a torch ``Dataset``.

Shapes: N samples, C H W image.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unlearn.core.types import ImageSet, InputView
from unlearn.data.datasets.normalization import Normalize


@dataclass(frozen=True)
class FloatView:
    """Network input stored bit by bit: float32 (C, H, W) as uint8 (C, H, 4 W).

    Attributes:
        floats: Marks such views.
    """

    floats: bool = True

    def __call__(self, image: Tensor, index: Tensor) -> Tensor:
        """Return float32 (B, C, H, W) from its bytes, uint8 (B, C, H, 4 W)."""
        return image.contiguous().view(torch.float32)


def stack_images(data: Any, what: str) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W), uint8 or float32, and labels int64 (N,).

    Args:
        data: A pair of tensors, or a ``Dataset`` of pairs of an image (tensor or PIL) and a label.
        what: Name of the data in messages.

    Raises:
        ValueError: If they are neither.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor):
        image, label = data[0], torch.as_tensor(data[1])
    elif hasattr(data, "__getitem__") and isinstance(data, Sized) and len(data):
        pairs = [data[i] for i in range(len(data))]  # type: ignore[index]
        try:
            image = torch.stack([_to_tensor(pair[0]) for pair in pairs])
            label = torch.tensor([int(pair[1]) for pair in pairs])
        except (TypeError, RuntimeError, IndexError) as error:
            raise ValueError(
                f"{what}: a Dataset must give pairs of an image and a label, all of one size: {error}"
            ) from error
    else:
        raise ValueError(
            f"{what} must be (images, labels), a Dataset or a folder, got {type(data).__name__}"
        )
    if image.ndim != 4 or label.shape != (len(image),) or not len(image):
        raise ValueError(
            f"{what} needs images (N, C, H, W) and labels (N,), got {tuple(image.shape)} and "
            f"{tuple(label.shape)}"
        )
    image = image.detach().cpu()
    return image if image.dtype == torch.uint8 else image.float(), label.long().cpu()


def _to_tensor(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        return image
    from torchvision.transforms.functional import pil_to_tensor

    return pil_to_tensor(image)


def make_image_set(
    image: Tensor,
    label: Tensor,
    *,
    num_classes: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    what: str,
) -> ImageSet:
    """Return a set of images in the form that methods use.

    Args:
        image: uint8, normalized by mean and std; or float32, which is network input.
        label: int64 (N,).
        num_classes: K.
        mean: Channel means of images in [0, 1].
        std: Channel standard deviations of images in [0, 1].
        what: Name of the data in messages.

    Raises:
        ValueError: If mean and std are given for floats, or missing for uint8.
    """
    bytes_ = image.dtype == torch.uint8
    if bytes_ != (mean is not None) or bytes_ != (std is not None):
        raise ValueError(
            f"{what}: uint8 images need mean and std as used in training"
            if bytes_
            else f"{what}: float images are taken as network input; leave out mean and std"
        )
    view: InputView = FloatView() if not bytes_ else Normalize(tuple(mean or ()), tuple(std or ()))
    stored = image if bytes_ else image.contiguous().view(torch.uint8)
    return ImageSet(stored, label, torch.arange(len(label)), num_classes, view)
