"""Image files as a set: nothing is decoded until it is known which of them are used.

Shapes: N files, C H W image, n rows.
"""

import hashlib
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlearn.core.file_digests import FileDigests
from unlearn.core.stored_images import (
    RESIDENT_BYTES,
    ImageSource,
    StoredImages,
    as_images,
)
from unlearn.data.datasets.base import Dataset
from unlearn.data.datasets.encoded_store import EncodedStore
from unlearn.data.datasets.image_decoding import (
    MAX_PIXELS,
    ImageDecoder,
    limit_pixels,
    max_file_bytes,
)
from unlearn.data.datasets.image_store import ImageStore, hash_bytes, show_progress
from unlearn.data.datasets.pixel_store import PixelStore

log = logging.getLogger(__name__)

FORMAT = 4
"""Part of the stores' keys; increase it when ``ImageDecoder`` changes pixels."""

STORES = ("auto", "pixels", "encoded")
DECODERS = ("cpu", "device")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Files that are not decoded yet; the source of ``StoredImages`` until ``decode_used``.

    Attributes:
        root: Folder of the data set.
        top: Folder that names are relative to.
        names: Path of each file below ``top``.
        decoder: Decodes them.
        cache: Folder of the stores.
        store: One of ``STORES``.
        unreadable: What to do with images that cannot be read: "fail" or "skip".
        decode: One of ``DECODERS``: where encoded images are decoded when they are read.
    """

    root: Path
    top: Path
    names: tuple[str, ...]
    decoder: ImageDecoder
    cache: Path
    store: str
    unreadable: str
    decode: str = "cpu"

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H and W."""
        return self.decoder.channels, self.decoder.size, self.decoder.size

    def select_readable(self) -> Tensor:
        """Return the rows of the images that may be used, int64.

        If unreadable images are skipped, all are decoded to know them; else they are an error once
        they are used, and nothing is decoded here.
        """
        rows = torch.arange(len(self.names))
        if self.unreadable == "fail":
            return rows
        reasons = decode_rows(self, rows).reasons
        report_unreadable(self, reasons)
        return rows[~torch.isin(rows, torch.tensor(list(reasons), dtype=torch.long))]

    def get_images(self, rows: Tensor) -> Tensor:
        """Return images (n, C, H, W), to be selected from and then passed to ``decode_used``."""
        return as_images(StoredImages(self, rows))

    def name_unreadable(self, reasons: dict[int, str]) -> list[str]:
        """Return name and reason of images that cannot be read."""
        return [self.names[row] + f" ({why})" * bool(why) for row, why in reasons.items()]

    def list_paths(self) -> tuple[str, ...]:
        """Return the path of each file; a ``Path`` takes several times the memory."""
        return tuple(os.path.join(self.top, name) for name in self.names)

    def compute_key(self) -> str:
        """Return a hash of the files and of everything that affects their decoding."""
        import PIL

        decoder = self.decoder
        how = f"{FORMAT} {PIL.__version__} {decoder.size} {decoder.channels}"
        how += f" {decoder.max_pixels}" * (decoder.max_pixels != MAX_PIXELS)
        digest = hashlib.blake2b(how.encode(), digest_size=16)
        known = FileDigests(self.root, self.cache, max_file_bytes(decoder.max_pixels))
        contents = known.hash_files(self.list_paths())
        for name, content in zip(self.names, contents, strict=True):
            named = os.fsencode(name)
            digest.update(b"%d %s %s" % (len(named), named, content.encode()))
        return digest.hexdigest()

    def open_store(self, rows: int) -> ImageStore:
        """Return the store of the files, of the kind that suits so many rows."""
        key, paths = self.compute_key(), self.list_paths()
        pixels = PixelStore(self.cache, key, paths, self.decoder)
        if self.store == "pixels":
            return pixels
        encoded = EncodedStore(self.cache, key, paths, self.decoder)
        encoded.on_device = self.decode == "device"
        if self.store == "encoded":
            return encoded
        size = rows * torch.Size(self.shape).numel()
        return pixels if pixels.path.exists() or fits_machine(size, self.cache) else encoded

    def read(self, rows: Tensor) -> Tensor:
        """Raise an error: the images are not decoded."""
        raise RuntimeError("images are read before decode_used")

    get_digests = get_maxima = read


def fits_machine(size: int, folder: Path) -> bool:
    """Return whether pixels take at most half of the memory and half of the free disk space."""
    while not folder.exists():
        folder = folder.parent
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return size <= min(memory, shutil.disk_usage(folder).free) // 2


def decode_used(dataset: Dataset) -> Dataset:
    """Return a data set of ``ImageFiles`` with the images that it uses decoded.

    Those of one folder are held in memory if they take less than ``RESIDENT_BYTES``, unless a store
    was asked for; else they are lists of rows of a store.

    Raises:
        ValueError: If images cannot be read, and ``ImageFiles.unreadable`` is "fail".
    """
    sets = {"train": dataset.train, "test": dataset.test}
    lists = {name: _get_list(part.image) for name, part in sets.items()}
    for files in {id(one.source): one.source for one in lists.values()}.values():
        assert isinstance(files, ImageFiles)
        own = [name for name, one in lists.items() if one.source is files]
        rows = torch.cat([lists[name].rows for name in own])
        decoded = decode_rows(files, rows.unique())
        report_unreadable(files, decoded.reasons)
        for name in own:
            sets[name] = replace(sets[name], image=decoded.get_images(lists[name].rows))
    return replace(dataset, **sets)


def _get_list(images: Any) -> StoredImages:
    assert isinstance(images, StoredImages)
    return images


@dataclass(frozen=True)
class DecodedImages:
    """Decoded images of files.

    Attributes:
        source: Where they are.
        resident: Whether they are to be held in memory.
        reasons: Why images cannot be read, by row; a reason may be empty.
    """

    source: ImageSource
    resident: bool
    reasons: dict[int, str]

    def get_images(self, rows: Tensor) -> Tensor:
        """Return the images of rows int64 (n,): a tensor, or the rows of a store."""
        images = StoredImages(self.source, rows)
        return images.load() if self.resident else as_images(images)


def decode_rows(files: ImageFiles, rows: Tensor) -> DecodedImages:
    """Return images of files, decoded now or earlier; in memory if they cannot be stored.

    Args:
        files: The files.
        rows: The images that are used, ascending.

    Raises:
        ValueError: If none of them can be read.
    """
    small = len(rows) * torch.Size(files.shape).numel() <= RESIDENT_BYTES
    resident = small and files.store == "auto"
    store = files.open_store(len(rows))
    try:
        store.fill(rows, verify=resident)
        decoded = DecodedImages(store, resident, store.find_unreadable(rows))
    except OSError as error:
        log.warning("decoded images are not cached: %s", error)
        decoded = _decode_in_memory(files, rows)
    if len(decoded.reasons) == len(rows):
        first = files.name_unreadable(decoded.reasons)[0]
        raise ValueError(
            f"dataset.root={files.root}: none of {len(rows)} images is readable, such as {first}"
        )
    return decoded


@dataclass(frozen=True)
class MemoryImages:
    """An ``ImageSource`` in memory, where no store can be written.

    Attributes:
        pixels: uint8 (n, C, H, W).
        places: Place in ``pixels`` of each file, int64 (N,).
    """

    pixels: Tensor
    places: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H and W."""
        _, c, h, w = self.pixels.shape
        return c, h, w

    def read(self, rows: Tensor) -> Tensor:
        """Return images uint8 (n, C, H, W) of rows int64 (n,)."""
        return self.pixels[self.places[rows]]

    def get_digests(self, rows: Tensor) -> Tensor:
        """Return a hash of the pixels of each image, uint8 (n, 16)."""
        hashes = [hash_bytes(self.read(row[None]).numpy().data.cast("B")) for row in rows]
        return torch.frombuffer(bytearray(b"".join(hashes)), dtype=torch.uint8).view(len(rows), -1)

    def get_maxima(self, rows: Tensor) -> Tensor:
        """Return the largest value of each channel, uint8 (n, C)."""
        return torch.stack([self.read(row[None])[0].amax((1, 2)) for row in rows])


def _decode_in_memory(files: ImageFiles, rows: Tensor) -> DecodedImages:
    paths = files.list_paths()
    pixels = torch.zeros(len(rows), *files.shape, dtype=torch.uint8)
    places = torch.zeros(len(paths), dtype=torch.long)
    places[rows] = torch.arange(len(rows))
    reasons = {}

    def decode_place(place: int, row: int) -> None:
        image = files.decoder.decode_file(Path(paths[row]))
        if isinstance(image, str):
            reasons[row] = image
        else:
            pixels[place] = image

    with limit_pixels(files.decoder.max_pixels), ThreadPoolExecutor() as pool:
        done = pool.map(decode_place, range(len(rows)), rows.tolist())
        for _ in show_progress(done, len(rows)):
            pass
    small = pixels.numel() <= RESIDENT_BYTES
    return DecodedImages(MemoryImages(pixels, places), small, dict(sorted(reasons.items())))


def report_unreadable(files: ImageFiles, reasons: dict[int, str]) -> None:
    """Log images that cannot be read.

    Raises:
        ValueError: If they are not to be skipped.
    """
    if not reasons:
        return
    bad = files.name_unreadable(reasons)
    if files.unreadable == "fail":
        named = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise ValueError(
            f"{len(bad)} unreadable image{'s' * (len(bad) != 1)} in {files.top}: {named}; "
            "fix or remove them, or set dataset.unreadable=skip"
        )
    log.warning("skipped unreadable images in %s (%d): %s", files.top, len(bad), ", ".join(bad))
