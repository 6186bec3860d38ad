"""Images outside of a process's private memory, read in batches; imports only torch.

A set of such images is a list of row numbers of a source: a part of it is another list, never a
copy. Shapes: N images, C H W image, n rows.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from unlearn.core.prefetch import prefetch

RESIDENT_BYTES = 192 * 2**20
"""Images of files that take less than this as pixels are held in memory."""

CHUNK_BYTES = 32 * 2**20
"""Bytes of images that are read at once where a whole set is needed."""


class ImageSource(Protocol):
    """Rows of images, on disk; safe to read from several threads."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H and W."""
        ...

    def read(self, rows: Tensor) -> Tensor:
        """Return images uint8 (n, C, H, W) of rows int64 (n,), in any memory layout."""
        ...

    def get_digests(self, rows: Tensor) -> Tensor:
        """Return a hash of the pixels of each image, uint8 (n, 16)."""
        ...

    def get_maxima(self, rows: Tensor) -> Tensor:
        """Return the largest value of each channel, uint8 (n, C)."""
        ...


class StoredImages:
    """Images of a source, indexed as a uint8 tensor (N, C, H, W) is; indexing reads them.

    Attributes:
        source: Where the images are.
        rows: Rows of the source, int64 (N,).
    """

    dtype = torch.uint8
    ndim = 4
    device = torch.device("cpu")

    def __init__(self, source: ImageSource, rows: Tensor) -> None:
        """Store the source and the rows."""
        self.source = source
        self.rows = rows

    @property
    def shape(self) -> torch.Size:
        """N, C, H and W."""
        return torch.Size((len(self.rows), *self.source.shape))

    def __len__(self) -> int:
        """Return N."""
        return len(self.rows)

    def numel(self) -> int:
        """Return N * C * H * W, which is also the number of bytes."""
        return self.shape.numel()

    def __getitem__(self, key: Tensor | slice | int) -> Tensor:
        """Return images in memory: uint8 (n, C, H, W), or (C, H, W) for a number."""
        if isinstance(key, int):
            return self[torch.tensor([key])][0]
        return self.source.read(self.rows[key]).contiguous()

    def read(self, key: Tensor | slice) -> Tensor:
        """Return images in memory in the layout of the source, uint8 (n, C, H, W)."""
        return self.source.read(self.rows[key])

    def read_on(self, key: Tensor | slice, device: torch.device) -> Tensor:
        """Return images as ``read`` does, on a device if the source decodes them there."""
        read_on = getattr(self.source, "read_on", None)
        rows = self.rows[key]
        return self.source.read(rows) if read_on is None else read_on(rows, device)

    def select_rows(self, keep: Tensor) -> "StoredImages":
        """Return the images at positions int64 (n,) or bool (N,), without reading them."""
        return StoredImages(self.source, self.rows[keep])

    def to(self, device: torch.device | str) -> Tensor:
        """Return itself for the CPU, else all images in one tensor of the device."""
        if torch.device(device).type == "cpu":
            return cast(Tensor, self)
        out = torch.empty(self.shape, dtype=torch.uint8, device=device)
        self._copy_to(out)
        return out

    def load(self) -> Tensor:
        """Return all images in memory, uint8 (N, C, H, W)."""
        out = torch.empty(self.shape, dtype=torch.uint8)
        self._copy_to(out)
        return out

    def _copy_to(self, out: Tensor) -> None:
        start = 0
        for part in iterate_chunks(self):
            out[start : start + len(part)] = part
            start += len(part)


def as_images(stored: StoredImages) -> Tensor:
    """Return the images, typed as the tensor that they stand for in an ``ImageSet``."""
    return cast(Tensor, stored)


def iterate_chunks(images: StoredImages) -> Iterator[Tensor]:
    """Yield all images in order, in chunks of ``CHUNK_BYTES``."""
    step = max(1, CHUNK_BYTES // max(1, torch.Size(images.source.shape).numel()))
    for start in range(0, len(images), step):
        yield images[start : start + step]


def take_rows(images: Tensor, keep: Tensor) -> Tensor:
    """Return the images at positions ``keep``: a copy of tensors, a list of stored images."""
    if isinstance(images, StoredImages):
        return as_images(images.select_rows(keep))
    return images[keep]


def concatenate(parts: Iterable[Tensor]) -> Tensor:
    """Return images (N, C, H, W) of several sets in one; stored images are not read.

    Raises:
        TypeError: If only some are stored, or they have different sources.
    """
    images = list(parts)
    stored = [part for part in images if isinstance(part, StoredImages)]
    if not stored:
        return torch.cat(images)
    if len(stored) < len(images) or len({id(part.source) for part in stored}) > 1:
        raise TypeError("images of different sources cannot be one set")
    return as_images(StoredImages(stored[0].source, torch.cat([part.rows for part in stored])))


def get_channel_maxima(images: Tensor) -> Tensor:
    """Return the largest value of each channel over all images, uint8 (C,)."""
    if isinstance(images, StoredImages):
        return images.source.get_maxima(images.rows).amax(0)
    return images.amax(dim=(0, 2, 3))


def hash_images(images: Tensor) -> bytes:
    """Return the SHA-256 of the pixels of all images; see ``update_hash``."""
    digest = hashlib.sha256()
    update_hash(digest, images)
    return digest.digest()


def update_hash(digest: Any, images: Tensor) -> None:
    """Update a hash by the pixels of all images, or by the values of any tensor.

    For stored images that take more than ``RESIDENT_BYTES``, by the images' own hashes, so that they
    are not read. Where images are stored does not change the result; their size does.
    """
    if not isinstance(images, StoredImages):
        digest.update(_view_bytes(images))
    elif images.numel() > RESIDENT_BYTES:
        digest.update(_view_bytes(images.source.get_digests(images.rows)))
    else:
        for part in iterate_chunks(images):
            digest.update(_view_bytes(part))


def read_batches(
    images: Tensor, parts: Iterable[Tensor | slice], device: torch.device
) -> Iterator[Tensor]:
    """Yield parts of the images on a device, contiguous.

    What is not in the device's memory is read ahead by a thread: from the disk, or into pinned
    memory, from where a GPU copies it while it computes.
    """
    stored, pin = isinstance(images, StoredImages), device.type == "cuda"
    if not stored and images.device.type == device.type:
        for part in parts:
            yield images[part].to(device, non_blocking=True)
        return

    def read_part(part: Tensor | slice) -> Tensor:
        rows = images.read_on(part, device) if isinstance(images, StoredImages) else images[part]
        return rows.pin_memory() if pin and rows.device.type == "cpu" else rows

    def move_part(rows: Tensor) -> Tensor:
        return rows.to(device, non_blocking=True).contiguous()

    yield from map(move_part, prefetch(map(read_part, parts)))  # keeps no batch, as a loop would


def _view_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, without a copy where it is contiguous."""
    return tensor.contiguous().numpy().data.cast("B")
