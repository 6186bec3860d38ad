"""Decoding of image files, bounded in pixels and memory.

Shapes: C H W image.
"""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlearn.core.files import open_regular_file

MAX_PIXELS = 178_956_970
"""Default of the most pixels of an image: from here on, PIL's own default is an error, too."""

MEMORY = 2 * 2**30
"""Bytes of images that are decoded at once; a larger image is decoded alone."""

BYTES_PER_PIXEL = 12
"""While decoding: three copies (decoded, rotated, converted) of at most four bytes."""

BYTES_PER_STORED_PIXEL, MOST_HEADERS = 8, 2**24
"""Bound of a file's size: four channels of 16 bits, uncompressed, and its headers."""


class UnusableImageError(ValueError):
    """An image is refused; the message gives the reason."""


class MemoryBudget:
    """Bytes that threads share; a request for more than all waits until nobody holds any."""

    def __init__(self, size: int) -> None:
        """Store the number of bytes."""
        self.size = size
        self.used = 0
        self.changed = threading.Condition()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Hold bytes, after waiting until they are free."""
        size = min(size, self.size)
        with self.changed:
            self.changed.wait_for(lambda: self.used + size <= self.size)
            self.used += size
        try:
            yield
        finally:
            with self.changed:
                self.used -= size
                self.changed.notify_all()


@contextmanager
def limit_pixels(most: int) -> Iterator[None]:
    """Let PIL raise an error for larger images; for the whole process, so not within a thread."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.MAX_IMAGE_PIXELS = most
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def decode_file(
    path: Path, size: int, mode: str, *, max_pixels: int, budget: MemoryBudget
) -> Tensor | str:
    """Return one image as uint8 (C, size, size), or why it cannot be read; may be empty.

    Call within ``limit_pixels``.
    """
    from PIL import Image

    try:
        with open_regular_file(path) as file:
            if os.fstat(file.fileno()).st_size > max_file_bytes(max_pixels):
                raise UnusableImageError(f"too large for dataset.max_pixels={max_pixels}")
            with Image.open(file) as image:  # reads the header alone
                with budget.reserve(image.width * image.height * BYTES_PER_PIXEL):
                    return _convert_image(image, size, mode)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return f"more than dataset.max_pixels={max_pixels} pixels"
    except Exception as error:  # PIL raises various errors on broken files
        return explain_error(error)


def explain_error(error: Exception) -> str:
    """Return why an image cannot be read; empty if the file's content is broken."""
    if isinstance(error, UnusableImageError | MemoryError):
        return str(error) or "out of memory"
    return getattr(error, "strerror", None) or ""


def decode_image(content: bytes, size: int, mode: str) -> Tensor:
    """Return one image as uint8 (C, size, size): shorter side resized, centre cropped."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return _convert_image(image, size, mode)


def max_file_bytes(max_pixels: int) -> int:
    """Return the largest size in bytes of a file that can hold an image of so many pixels."""
    return max_pixels * BYTES_PER_STORED_PIXEL + MOST_HEADERS


def _convert_image(image: Any, size: int, mode: str) -> Tensor:
    import numpy as np
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(image)
    image.close()
    if picture.mode.startswith("I;16"):  # PIL's conversion clips values above 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise UnusableImageError(f"unknown value range of {picture.mode} images")
    if "transparency" in picture.info and picture.mode == "P":
        picture = picture.convert("RGBA")  # avoids a warning of PIL; same pixels
    picture = picture.convert(mode)
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())
