"""The user's own images, one folder per class.

Layouts: ``root/train/<class>/*`` and ``root/test/<class>/*`` (or ``val``, ...: see
``find_layout``), that of Tiny-ImageNet, or ``root/<class>/*`` with a random split.
Shapes: N samples, C H W image.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlearn.core.files import is_folder
from unlearn.core.folder_layout import (
    ANNOTATIONS,
    choose_classes,
    find_layout,
    list_classes,
    read_annotations,
)
from unlearn.core.stored_images import take_rows
from unlearn.data.datasets.base import SUBSET_SEED, Dataset, DatasetOptions
from unlearn.data.datasets.image_decoding import MAX_PIXELS, ImageDecoder
from unlearn.data.datasets.image_files import DECODERS, STORES, ImageFiles, decode_used

log = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


@dataclass(frozen=True, kw_only=True)
class ImageFolder(DatasetOptions):
    """Images in folders named after their class, any size, resized to ``image_size``.

    Attributes:
        root: The folder.
        test_fraction: Fraction of each class used for testing if there is no test folder.
        unreadable: "fail" lists unreadable images and stops, "skip" ignores them.
        cache_dir: Folder of the stores of decoded images.
        max_pixels: Pixels of the largest image that is decoded; larger ones are unreadable.
        classes: Names of the classes to use, or a file with one a line; None: all.
        store: How images that need more than 192 MiB are kept: "pixels", "encoded", as the bytes of
            their files, or "auto"; the pixels are the same.
        decode: Where encoded images are decoded: "cpu", or on the "device" where that is a GPU, whose
            pixels differ by a few levels.
    """

    root: str
    test_fraction: float
    unreadable: str
    cache_dir: str
    max_pixels: int = MAX_PIXELS  # of configs that were recorded without it
    classes: Sequence[str] | str | None = None
    store: str = "auto"
    decode: str = "cpu"

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        super().__post_init__()
        if self.unreadable not in ("fail", "skip"):
            raise ValueError(f"dataset.unreadable must be fail or skip, got {self.unreadable}")
        if self.store not in STORES:
            raise ValueError(f"dataset.store must be one of {', '.join(STORES)}, got {self.store}")
        if self.decode not in DECODERS:
            raise ValueError(
                f"dataset.decode must be one of {', '.join(DECODERS)}, got {self.decode}"
            )
        if len(self.mean) not in (1, 3):
            raise ValueError(
                f"dataset.mean and dataset.std must hold 3 values (RGB) or 1 (grey), "
                f"got {len(self.mean)}"
            )
        if self.max_pixels < 1:
            raise ValueError(f"dataset.max_pixels must be at least 1, got {self.max_pixels}")
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"dataset.test_fraction must be in (0, 1), got {self.test_fraction}")

    def load(self) -> Dataset:
        """Return the data set; each image that is used is decoded once, and then read from a store.

        Raises:
            ValueError: If the folder's content is invalid, or images are unreadable.
        """
        layout = find_layout(Path(self.root))
        log.info("images: %s", layout.describe())
        every = list_classes(layout.train)
        if layout.test is not None:
            check_test_classes(layout.test, every)
        names = choose_classes(every, self.classes)
        image, label, files = self._list_split(layout.train, names)
        check_counts(label, names, layout.train, least=2 if layout.test is None else 1)
        if layout.test is not None:
            test = self._list_split(layout.test, names)
            return self.build_dataset((image, label), test[:2], tuple(names), files)
        return self.split_dataset(image, label, names, files)

    def build_dataset(self, *parts: Any, **more: Any) -> Dataset:
        """Return the data set of images of ``read_files``, with those that it uses decoded."""
        return decode_used(super().build_dataset(*parts, **more))

    def split_dataset(
        self, image: Tensor, label: Tensor, names: list[str], files: tuple[str, ...]
    ) -> Dataset:
        """Return the data set with a fraction of each class split off for testing."""
        held = draw_test_mask(label, self.test_fraction)
        kept, off = (
            tuple(f for f, out in zip(files, held.tolist(), strict=True) if out is wanted)
            for wanted in (False, True)
        )
        train, rest = ((take_rows(image, rows), label[rows]) for rows in (~held, held))
        return self.build_dataset(train, rest, tuple(names), kept, off)

    def _list_split(self, top: Path, names: list[str]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Return images that are not decoded yet, labels int64 (N,) and names below ``top``."""
        given = read_annotations(top)
        found = list_images(Path(self.root), top, names if given is None else ["images"])
        if given is not None and self.classes is not None:
            found = [name for name in found if given.get(name, names[0]) in names]
        if not found:
            raise ValueError(f"dataset.root={self.root}: no image in {top}")
        image, files = self.read_files(top, found)
        number = {name: i for i, name in enumerate(names)}
        classes = [f.partition("/")[0] if given is None else given.get(f) for f in files]
        unnamed = [f for f, name in zip(files, classes, strict=True) if name is None]
        if unnamed:
            raise ValueError(f"dataset.root: {top / ANNOTATIONS} does not name {unnamed[0]}")
        label = torch.tensor([number[name] for name in classes if name is not None])
        return image, label, files

    def read_files(self, top: Path, paths: Sequence[Path | str]) -> tuple[Tensor, tuple[str, ...]]:
        """Return images (N, C, H, W) of files and their names below ``top``.

        The images are to be selected by ``take_rows`` and passed to ``build_dataset``, which decodes
        those that are used. Unreadable images are left out here if they are to be skipped.

        Args:
            top: Folder of the files.
            paths: The files, or their names below ``top``.
        """
        names = [p if isinstance(p, str) else p.relative_to(top).as_posix() for p in paths]
        files = ImageFiles(
            Path(self.root), top, tuple(names),
            ImageDecoder(self.image_size, len(self.mean), self.max_pixels),
            Path(self.cache_dir), self.store, self.unreadable, self.decode,
        )  # fmt: skip
        rows = files.select_readable()
        return files.get_images(rows), tuple(names[row] for row in rows.tolist())


def check_test_classes(top: Path, names: list[str]) -> None:
    """Check that every class of the test folder is in the training folder."""
    given = read_annotations(top)
    found = set(list_classes(top)) if given is None else set(given.values())
    extra = sorted(found - set(names))
    if extra:
        raise ValueError(f"dataset.root: {top} holds classes without training images: {extra}")


def check_counts(label: Tensor, names: list[str], top: Path, least: int) -> None:
    """Check that every class has enough readable images."""
    count = label.bincount(minlength=len(names)).tolist()
    few = [f"{name} ({n})" for name, n in zip(names, count, strict=True) if n < least]
    if few:
        raise ValueError(
            f"each class in {top} needs at least {least} readable images, got {', '.join(few[:5])}"
        )


def list_images(root: Path, top: Path, names: list[str]) -> list[str]:
    """Return image files of the given classes, relative to ``top``, in a fixed order.

    Other files are logged.

    Raises:
        ValueError: If a link leads out of ``root``.
    """
    inside = root.resolve()
    found: list[str] = []
    other: list[str] = []
    for folder in (top, *(top / name for name in names)):
        if folder != root and folder.is_symlink():
            _check_link(folder, root, inside)
    for name in names:
        for entry, below in _walk_sorted(os.path.join(top, name), name):
            if entry.is_symlink():
                _check_link(Path(entry.path), root, inside)
            if is_folder(entry):
                continue
            if not _is_text(entry.name):
                raise ValueError(
                    f"dataset.root: the name of {os.fsencode(entry.path)!r} is not UTF-8; rename it"
                )
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                found.append(below)
            elif not entry.name.startswith("."):
                other.append(below)
    if other:
        log.warning(
            "ignored files in %s that are no images (%d): %s", top, len(other), ", ".join(other[:5])
        )
    return found


def _walk_sorted(folder: str, below: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yield the entries below a folder and their relative paths, each folder before its content.

    Links to folders are not followed.
    """
    with os.scandir(folder) as entries:
        content = sorted(entries, key=lambda entry: entry.name)
    for entry in content:
        name = f"{below}/{entry.name}"
        yield entry, name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_sorted(entry.path, name)


def _check_link(path: Path, root: Path, inside: Path) -> None:
    if leads_out(path, inside):
        raise ValueError(f"dataset.root: {path} links to something outside of {root}")


def _is_text(name: str) -> bool:
    """Return whether a name can be written to lists and reports."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def leads_out(link: Path, folder: Path) -> bool:
    """Return whether a link ends outside of a folder; one that leads to itself ends nowhere."""
    try:
        return not link.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a loop; the type depends on the version of Python
        return False


def draw_test_mask(label: Tensor, fraction: float) -> Tensor:
    """Return bool (N,): a fixed fraction of each class, at least one and not all samples."""
    generator = torch.Generator().manual_seed(SUBSET_SEED)
    held = torch.zeros(len(label), dtype=torch.bool)
    for c in label.unique():
        own = (label == c).nonzero().flatten()
        count = min(max(1, round(fraction * len(own))), len(own) - 1)
        held[own[torch.randperm(len(own), generator=generator)[:count]]] = True
    return held
