"""Images as the bytes of their files, in one memory-mapped file, decoded when they are read.

The pixels are those of ``PixelStore``, to the last bit: PIL decodes each image once when it is
stored, and torchvision, which is about twice as fast, is used for those that it decodes alike. Only
on a GPU, if that is asked, these are decoded by nvJPEG, whose pixels differ by a few levels.
Shapes: n rows, C H W image.
"""

import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlearn.data.datasets.image_decoding import allow_pixels, decode_image
from unlearn.data.datasets.image_store import ImageStore, MadeImage, hash_bytes
from unlearn.data.datasets.store_index import STORED

log = logging.getLogger(__name__)

JPEG = b"\xff\xd8\xff"


class EncodedStore(ImageStore):
    """The bytes of image files, one after the other."""

    kind = "encoded"
    on_device = False
    """Whether images are decoded on the GPU that they are read to."""
    _pool: ThreadPoolExecutor | None = None
    _end = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without threads."""
        return super().__getstate__() | {"_pool": None}

    def read(self, rows: Tensor) -> Tensor:
        """Return images uint8 (n, C, H, W) of rows int64 (n,), contiguous.

        Decoded by as many threads as torch uses.
        """
        allow_pixels(self.decoder.max_pixels)
        out = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        threads, numbers = torch.get_num_threads(), range(len(rows))
        if threads == 1:
            self._decode_rows(rows, out, numbers)
            return out
        if self._pool is None:
            self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        parts = [numbers[first :: 4 * threads] for first in range(4 * threads)]
        for _ in self._pool.map(lambda part: self._decode_rows(rows, out, part), parts):
            pass
        return out

    def read_on(self, rows: Tensor, device: torch.device) -> Tensor:
        """Return images on a device, decoded there if ``on_device`` and it is a GPU that can."""
        decode = find_device_decoder() if self.on_device and device.type == "cuda" else None
        return self.read(rows) if decode is None else self.decode_on(rows, device, decode)

    def decode_on(
        self,
        rows: Tensor,
        device: torch.device,
        decode: Callable[[list[Tensor], Any], list[Tensor]],
    ) -> Tensor:
        """Return images uint8 (n, C, H, W) on a device; those that only PIL can read come from ``read``.

        Args:
            rows: int64 (n,).
            device: The device.
            decode: Returns images of the bytes of JPEGs, on the device.
        """
        content, index = self._get_map(), self.index
        out = torch.empty(len(rows), *self.shape, dtype=torch.uint8, device=device)
        able = index.fast[rows]
        spans = [(int(index.start[row]), int(index.size[row])) for row in rows[able]]
        if spans:
            try:
                found = decode([content[start : start + size] for start, size in spans], device)
            except RuntimeError as error:  # a kind of JPEG that the GPU does not know
                log.warning("images are decoded on the CPU: %s", str(error).splitlines()[0])
                self.on_device = False
                return self.read(rows)
            out[able.to(device)] = torch.stack(found)
        if not able.all():
            out[~able.to(device)] = self.read(rows[~able]).to(device)
        return out

    def _decode_rows(self, rows: Tensor, out: Tensor, numbers: range) -> None:
        """Decode some of the rows into their places."""
        content, index, decode_fast = self._get_map(), self.index, find_fast_decoder()
        own = rows[numbers.start : numbers.stop : numbers.step]
        values = (t[own].tolist() for t in (index.start, index.size, index.fast))
        for number, start, size, fast in zip(numbers, *values, strict=True):
            part = content[start : start + size]
            if decode_fast is not None and fast:
                image = decode_fast(part)
            else:
                image = decode_image(part.numpy().tobytes(), self.decoder.size, self.decoder.mode)
            out[number] = image

    def _make_image(self, path: Path) -> MadeImage | str:
        content = self.decoder.read_file(path)
        if isinstance(content, str):
            return content
        image = self.decoder.decode_content(content)
        if isinstance(image, str):
            return image
        return MadeImage(
            content, hash_bytes(image.numpy().data.cast("B")), image.amax((1, 2)),
            fast=self.decoder.channels == 3 and _decodes_alike(content, image),
        )  # fmt: skip

    def _prepare_file(self) -> None:
        index = self.index
        if not (index.state == STORED).any():
            self.path.unlink(missing_ok=True)  # another process may still read other places of it
        self._end = int((index.start + index.size).max())

    def _reserve(self, row: int, size: int) -> int:
        if int(self.index.size[row]) == size:  # it was broken: written again where it is
            return int(self.index.start[row])
        start, self._end = self._end, self._end + size
        return start


def _decodes_alike(content: bytes, image: Tensor) -> bool:
    """Return whether torchvision decodes a JPEG to the same pixels, uint8 (C, H, W)."""
    decode_fast = find_fast_decoder()
    if decode_fast is None or not content.startswith(JPEG):
        return False
    try:
        own = decode_fast(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    except RuntimeError:
        return False
    return torch.equal(own, image)


@functools.cache
def find_fast_decoder() -> Callable[[Tensor], Tensor] | None:
    """Return torchvision's decoder: from the bytes of a JPEG, uint8, to uint8 (3, H, W).

    None if this version has none: torchvision 0.29 announces that its decoders will be removed. The
    operator is called, since the function around it warns of that.
    """
    found = _find_operator("decode_jpeg")
    if found is None:
        return None
    operator, mode = found
    return lambda content: operator(content, mode, False)


def find_device_decoder() -> Callable[[list[Tensor], Any], list[Tensor]] | None:
    """Return torchvision's decoder of lists of JPEGs on a GPU; None if this version has none."""
    found = _find_operator("decode_jpegs_cuda")
    if found is None:
        return None
    operator, mode = found
    return lambda contents, device: operator(contents, mode, torch.device(device))


def _find_operator(name: str) -> tuple[Callable[..., Any], int] | None:
    """Return an operator of torchvision and its number of the mode RGB; None if there is none."""
    try:
        mode = find_rgb_mode()
        operator = getattr(torch.ops.image, name)
        operator.default  # noqa: B018, raises an error if there is none
    except (ImportError, AttributeError, RuntimeError):
        return None
    return operator, mode


def find_rgb_mode() -> int:
    """Return torchvision's number of the mode RGB; loads its operators."""
    from torchvision.io import ImageReadMode

    return ImageReadMode.RGB.value
