"""Images decoded once, in one memory-mapped file that all processes share.

Beside the file ``<key>.<kind>`` there is an index, ``<key>.<kind>.index``: which images are stored,
with their hashes. Images are added when they are used first; what is written counts as soon as the
index names it, so that a process that is killed loses its last block alone. The content is verified
against the hashes, large files once for each state of the file (size, time and inode).
Shapes: N images, C H W image, n rows.
"""

import hashlib
import json
import logging
import os
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from unlearn.core.allocator import return_large_buffers
from unlearn.core.console import make_console
from unlearn.core.files import write_text_atomically
from unlearn.core.verified_files import BrokenFileError, set_aside
from unlearn.data.datasets.image_decoding import ImageDecoder, limit_pixels
from unlearn.data.datasets.store_index import ABSENT, DIGEST_BYTES, STORED, UNREADABLE, StoreIndex

log = logging.getLogger(__name__)

BLOCK_BYTES = 64 * 2**20
"""Pixels that are decoded between two writes of the index; bounds the memory."""


@dataclass(frozen=True)
class MadeImage:
    """An image to store: its bytes, the hash and the maxima of its pixels, uint8 (C,)."""

    content: bytes | memoryview
    pixels: bytes
    maxima: Tensor
    fast: bool = False


class ImageStore(ABC):
    """An ``ImageSource`` in the cache folder."""

    kind: ClassVar[str]

    def __init__(
        self, folder: Path, key: str, paths: tuple[str, ...], decoder: ImageDecoder
    ) -> None:
        """Read the index, if there is one.

        Args:
            folder: Folder of the cache.
            key: Hash of the files and of everything that determines their pixels.
            paths: The N files.
            decoder: Decodes them.
        """
        self.folder, self.key = folder, key
        self.paths, self.decoder = paths, decoder
        self.path = folder / f"{key}.{self.kind}"
        self._map: Tensor | None = None
        try:
            found = self._read_index()
        except BrokenFileError:
            found = None  # reported when it is made again
        self.index = found or StoreIndex.make_empty(len(paths), decoder.channels)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the map, which each process makes itself, and without files."""
        return vars(self) | {"_map": None, "paths": ()}

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H and W."""
        return self.decoder.channels, self.decoder.size, self.decoder.size

    @abstractmethod
    def read(self, rows: Tensor) -> Tensor:
        """Return images uint8 (n, C, H, W) of rows int64 (n,)."""

    @abstractmethod
    def _make_image(self, path: Path) -> MadeImage | str:
        """Return an image as it is stored, or why it cannot be read."""

    def get_digests(self, rows: Tensor) -> Tensor:
        """Return a hash of the pixels of each image, uint8 (n, 16)."""
        return self.index.pixels[rows]

    def get_maxima(self, rows: Tensor) -> Tensor:
        """Return the largest value of each channel, uint8 (n, C)."""
        return self.index.maxima[rows]

    def find_unreadable(self, rows: Tensor) -> dict[int, str]:
        """Return why images cannot be read, by row; the reason may be empty."""
        bad = rows[self.index.state[rows] == UNREADABLE]
        return {row: self.index.reasons.get(str(row), "") for row in bad.tolist()}

    def is_filled(self, rows: Tensor) -> bool:
        """Return whether no image of the rows is to be decoded."""
        return not len(self.index.find_absent(rows))

    def fill(self, rows: Tensor, *, verify: bool) -> None:
        """Decode the images of rows int64 (n,) that are not stored yet.

        Args:
            rows: Rows that are used.
            verify: Verify their bytes now, even if the file has not changed since the last time.

        Raises:
            OSError: If the store cannot be written.
        """
        if self.is_filled(rows) and self._is_intact(rows, verify):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            self._read_index_again()
            self._drop_broken(rows if verify else torch.arange(len(self.paths)))
            absent = self.index.find_absent(rows)
            if len(absent):
                self._add_images(absent)
            if not verify:
                write_text_atomically(self._checked_path, json.dumps(self._get_file_state()))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        lock = FileLock(self.folder / f"{self.key}.{self.kind}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.info("waiting for another process that decodes the same images")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @property
    def _index_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.index")

    @property
    def _checked_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.checked")

    def _read_index(self) -> StoreIndex | None:
        return StoreIndex.read(self._index_path, self.key, len(self.paths), self.decoder.channels)

    def _read_index_again(self) -> None:
        """Read what other processes have added; set a broken index aside."""
        try:
            found = self._read_index()
        except BrokenFileError as error:
            done = set_aside(self._index_path)
            log.warning(
                "decoding again: broken cache file %s (%s); %s", self._index_path, error, done
            )
            found = None
        self.index = found or StoreIndex.make_empty(len(self.paths), self.decoder.channels)

    def _get_file_state(self) -> list[int]:
        try:
            status = self.path.stat()
        except OSError:
            return []
        return [status.st_size, status.st_mtime_ns, status.st_ino]

    def _is_intact(self, rows: Tensor, verify: bool) -> bool:
        """Return whether the file has been verified, or is now found to be intact."""
        if verify:
            return not len(self._find_broken(rows))
        try:
            return json.loads(self._checked_path.read_text()) == self._get_file_state()
        except (OSError, ValueError):
            return False

    def _find_broken(self, rows: Tensor) -> Tensor:
        """Return the rows whose bytes do not match their hashes."""
        rows = rows[self.index.state[rows] == STORED]
        if not len(rows):
            return rows
        try:
            content = np.memmap(self.path, mode="r")
        except (OSError, ValueError):  # absent or empty
            return rows

        def is_broken(row: int) -> bool:
            start = int(self.index.start[row])
            part = content[start : start + int(self.index.size[row])]
            return hash_bytes(part.data) != self.index.content[row].numpy().tobytes()

        with ThreadPoolExecutor() as pool:
            broken = list(pool.map(is_broken, rows.tolist(), chunksize=64))
        return rows[torch.tensor(broken)]

    def _drop_broken(self, rows: Tensor) -> None:
        broken = self._find_broken(rows)
        if not len(broken):
            return
        self.index.state[broken] = ABSENT
        log.warning(
            "decoding again: cache file %s does not hold %d images as they were written",
            self.path,
            len(broken),
        )

    def _add_images(self, rows: Tensor) -> None:
        """Decode images and write them, block by block."""
        done = int((self.index.state != ABSENT).sum())
        if done:
            log.info("decoding images: %d, %d are stored", len(rows), done)
        step = max(1, BLOCK_BYTES // torch.Size(self.shape).numel())
        blocks = [block.tolist() for block in rows.split(step)]
        self._map = None
        self._prepare_file()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with limit_pixels(self.decoder.max_pixels), ThreadPoolExecutor() as pool:
                for row, made in show_progress(self._make_blocks(pool, blocks), len(rows)):
                    if row is None:
                        self.index.write(self._index_path, self.key)
                    elif isinstance(made, str):
                        self.index.state[row] = UNREADABLE
                        self.index.reasons[str(row)] = made
                    else:
                        self._write_image(descriptor, row, made)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _make_blocks(
        self, pool: ThreadPoolExecutor, blocks: list[list[int]]
    ) -> Iterator[tuple[int | None, Any]]:
        """Yield row and image of each row, and a pair of None after each block."""
        for block in blocks:
            yield from zip(
                block,
                pool.map(self._make_image, [Path(self.paths[row]) for row in block]),
                strict=True,
            )
            yield None, None

    @abstractmethod
    def _prepare_file(self) -> None:
        """Prepare the file before images are added."""

    @abstractmethod
    def _reserve(self, row: int, size: int) -> int:
        """Return where in the file the bytes of an image are to be written."""

    def _write_image(self, descriptor: int, row: int, made: MadeImage) -> None:
        index, left = self.index, memoryview(made.content)
        start = self._reserve(row, len(left))
        index.start[row], index.size[row] = start, len(left)
        index.content[row] = torch.frombuffer(bytearray(hash_bytes(left)), dtype=torch.uint8)
        index.pixels[row] = torch.frombuffer(bytearray(made.pixels), dtype=torch.uint8)
        index.maxima[row], index.fast[row] = made.maxima, made.fast
        while left:
            count = os.pwrite(descriptor, left, start)
            left, start = left[count:], start + count
        index.state[row] = STORED

    def _get_map(self) -> Tensor:
        """Return the bytes of the file, read-only, from the pages that all processes share."""
        if self._map is None:
            return_large_buffers()
            with warnings.catch_warnings():  # torch warns of tensors that must not be written
                warnings.simplefilter("ignore", UserWarning)
                self._map = torch.from_numpy(np.memmap(self.path, mode="r"))
        return self._map


def hash_bytes(content: bytes | memoryview) -> bytes:
    """Return the first ``DIGEST_BYTES`` bytes of the SHA-256."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def show_progress(
    items: Iterable[Any], total: int, title: str = "decoding images"
) -> Iterable[Any]:
    """Show a progress bar on a terminal."""
    from rich.progress import track

    if not sys.stderr.isatty():
        return items
    console = make_console(stderr=True)
    return track(items, title, total=total, console=console, transient=True)
