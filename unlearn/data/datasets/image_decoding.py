"""Decoding of image files, bounded in pixels and memory.

Shapes: C H W image.
"""

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from unlearn.core.files import open_regular_file

T = TypeVar("T")

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

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process makes a budget of its own."""
        return MemoryBudget, (self.size,)

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


def allow_pixels(most: int) -> None:
    """Let PIL open images of so many pixels, in this process from now on."""
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, most)


@dataclass(frozen=True)
class ImageDecoder:
    """Decodes image files to squares of one size; used by several threads.

    Attributes:
        size: Height and width, H.
        channels: C: 1 for grey, 3 for colour.
        max_pixels: Pixels of the largest image that is decoded.
        budget: Memory that the threads share.
    """

    size: int
    channels: int
    max_pixels: int
    budget: MemoryBudget = field(default_factory=lambda: MemoryBudget(MEMORY), compare=False)

    @property
    def mode(self) -> str:
        """PIL's mode of the images."""
        return "L" if self.channels == 1 else "RGB"

    def decode_file(self, path: Path) -> Tensor | str:
        """Return one image as uint8 (C, H, H), or why it cannot be read; may be empty.

        Call within ``limit_pixels``.
        """
        return self._explain_errors(lambda: self._decode_stream(self._open_file(path)))

    def read_file(self, path: Path) -> bytes | str:
        """Return the content of a file, or why it cannot be read."""

        def read() -> bytes:
            with self._open_file(path) as file:
                return file.read()

        return self._explain_errors(read)

    def decode_content(self, content: bytes) -> Tensor | str:
        """Return the image of a file's content; see ``decode_file``."""
        return self._explain_errors(lambda: self._decode_stream(io.BytesIO(content)))

    def _open_file(self, path: Path) -> io.BufferedReader:
        file = open_regular_file(path)
        if os.fstat(file.fileno()).st_size > max_file_bytes(self.max_pixels):
            file.close()
            raise UnusableImageError(f"too large for dataset.max_pixels={self.max_pixels}")
        return file

    def _decode_stream(self, stream: Any) -> Tensor:
        from PIL import Image

        with stream, Image.open(stream) as image:  # reads the header alone
            with self.budget.reserve(image.width * image.height * BYTES_PER_PIXEL):
                return _convert_image(image, self.size, self.mode)

    def _explain_errors(self, call: Callable[[], T]) -> T | str:
        from PIL import Image

        try:
            return call()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            return f"more than dataset.max_pixels={self.max_pixels} pixels"
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
