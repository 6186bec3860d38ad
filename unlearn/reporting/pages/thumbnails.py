"""Images of a data set as small pictures in a page.

Shapes: n images, C H W image.
"""

import base64
import io

import torch
from torch import Tensor

from unlearn.core.types import ImageSet

SIDE = 72
"""Pixels per side of a picture; small images are enlarged without smoothing."""


def to_viewable(data: ImageSet, rows: Tensor) -> Tensor:
    """Return displayable images, uint8 (n, C, H, W) with C of 1 or 3.

    Float images are scaled to their range; only the first channel is used
    unless there are three.
    """
    part = data.rows(rows.to(data.label.device))
    image = part.image[:].cpu()
    if getattr(data.view, "floats", False) and len(rows):
        values = data.view(part.image[:], part.index).float().cpu()
        low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
        image = ((values - low) / (high - low).clamp(min=1e-9) * 255).round().to(torch.uint8)
    return image if image.shape[1] in (1, 3) else image[:, :1]


def encode_png(image: Tensor) -> str:
    """Return an image, uint8 (C, H, W), as the data URL of a PNG."""
    from PIL import Image

    array = image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy()
    shown = Image.fromarray(array)
    if max(shown.size) > 2 * SIDE:
        shown.thumbnail((2 * SIDE, 2 * SIDE))
    file = io.BytesIO()
    shown.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
