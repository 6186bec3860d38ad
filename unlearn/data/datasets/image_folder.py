"""The user's own images, one folder per class.

Layouts: ``root/train/<class>/*`` and ``root/test/<class>/*`` (or ``val``, ...: see
``find_layout``), that of Tiny-ImageNet, or ``root/<class>/*`` with a random split.
Shapes: N samples, C H W image.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlearn.core.console import make_console
from unlearn.core.file_digests import FileDigests
from unlearn.core.folder_layout import (
    ANNOTATIONS,
    choose_classes,
    find_layout,
    list_classes,
    read_annotations,
)
from unlearn.data.datasets.base import SUBSET_SEED, Dataset, DatasetOptions
from unlearn.data.datasets.image_cache import load_or_make
from unlearn.data.datasets.image_decoding import (
    MAX_PIXELS,
    MEMORY,
    MemoryBudget,
    decode_file,
    limit_pixels,
    max_file_bytes,
)

log = logging.getLogger(__name__)

FORMAT = 3
"""Part of the cache's key; increase it when ``decode_image`` changes pixels."""

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


@dataclass(frozen=True, kw_only=True)
class ImageFolder(DatasetOptions):
    """Images in folders named after their class, any size, resized to ``image_size``.

    Attributes:
        root: The folder.
        test_fraction: Fraction of each class used for testing if there is no test folder.
        unreadable: "fail" lists unreadable images and stops, "skip" ignores them.
        cache_dir: Folder of the cache of decoded images.
        max_pixels: Pixels of the largest image that is decoded; larger ones are unreadable.
        classes: Names of the classes to use, or a file with one a line; None: all.
    """

    root: str
    test_fraction: float
    unreadable: str
    cache_dir: str
    max_pixels: int = MAX_PIXELS  # of configs that were recorded without it
    classes: Sequence[str] | str | None = None

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        super().__post_init__()
        if self.unreadable not in ("fail", "skip"):
            raise ValueError(f"dataset.unreadable must be fail or skip, got {self.unreadable}")
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
        """Return the data set; decoded once, then read from the cache.

        Raises:
            ValueError: If the folder's content is invalid, or images are unreadable.
        """
        layout = find_layout(Path(self.root))
        log.info("images: %s", layout.describe())
        every = list_classes(layout.train)
        if layout.test is not None:
            check_test_classes(layout.test, every)
        names = choose_classes(every, self.classes)
        image, label, files = self._read_images(layout.train, names)
        check_counts(label, names, layout.train, least=2 if layout.test is None else 1)
        if layout.test is not None:
            test = self._read_images(layout.test, names)
            return self.build_dataset((image, label), test[:2], tuple(names), files)
        return self.split_dataset(image, label, names, files)

    def split_dataset(
        self, image: Tensor, label: Tensor, names: list[str], files: tuple[str, ...]
    ) -> Dataset:
        """Return the data set with a fraction of each class split off for testing."""
        held = draw_test_mask(label, self.test_fraction)
        kept, off = (
            tuple(f for f, out in zip(files, held.tolist(), strict=True) if out is wanted)
            for wanted in (False, True)
        )
        rest = (image[held], label[held])
        return self.build_dataset((image[~held], label[~held]), rest, tuple(names), kept, off)

    def _read_images(self, top: Path, names: list[str]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        given = read_annotations(top)
        paths = list_images(Path(self.root), top, names if given is None else ["images"])
        if given is not None and self.classes is not None:
            places = {path: path.relative_to(top).as_posix() for path in paths}
            paths = [path for path in paths if given.get(places[path], names[0]) in names]
        if not paths:
            raise ValueError(f"dataset.root={self.root}: no image in {top}")
        image, files = self.read_files(top, paths)
        number = {name: i for i, name in enumerate(names)}
        labels = [Path(f).parts[0] if given is None else given.get(f) for f in files]
        unnamed = [f for f, label in zip(files, labels, strict=True) if label is None]
        if unnamed:
            raise ValueError(f"dataset.root: {top / ANNOTATIONS} does not name {unnamed[0]}")
        label = torch.tensor([number[name] for name in labels if name is not None])
        return image, label, files

    def read_files(self, top: Path, paths: list[Path]) -> tuple[Tensor, tuple[str, ...]]:
        """Return images (N, C, H, W) and their names below ``top``, without unreadable ones.

        Decoded once, then read from the cache.
        """
        value = load_or_make(
            Path(self.cache_dir),
            self._cache_key(top, paths),
            lambda: self._decode_images(top, paths),
        )
        self._report_unreadable(top, value["bad"])
        return value["image"], tuple(value["files"])

    def _cache_key(self, top: Path, paths: list[Path]) -> str:
        """Return a hash of the files and of everything that affects their decoding."""
        import PIL

        how = f"{FORMAT} {PIL.__version__} {self.image_size} {len(self.mean)}"
        how += f" {self.max_pixels}" * (self.max_pixels != MAX_PIXELS)
        digest = hashlib.blake2b(how.encode(), digest_size=16)
        known = FileDigests(Path(self.root), Path(self.cache_dir), max_file_bytes(self.max_pixels))
        for path, content in zip(paths, known.hash_files(paths), strict=True):
            name = os.fsencode(path.relative_to(top).as_posix())
            digest.update(b"%d %s %s" % (len(name), name, content.encode()))
        return digest.hexdigest()

    def _decode_images(self, top: Path, paths: list[Path]) -> dict[str, Any]:
        mode, budget = "L" if len(self.mean) == 1 else "RGB", MemoryBudget(MEMORY)

        def decode_one(path: Path) -> Tensor | str:
            return decode_file(
                path, self.image_size, mode, max_pixels=self.max_pixels, budget=budget
            )

        with limit_pixels(self.max_pixels), ThreadPoolExecutor() as pool:
            decoded = list(show_progress(pool.map(decode_one, paths), len(paths)))
        names = [p.relative_to(top).as_posix() for p in paths]
        good = {n: one for n, one in zip(names, decoded, strict=True) if isinstance(one, Tensor)}
        bad = [n + f" ({one})" * bool(one) for n, one in zip(names, decoded, strict=True)
               if isinstance(one, str)]  # fmt: skip
        if not good:
            raise ValueError(
                f"dataset.root={self.root}: none of {len(names)} images is readable, such as {bad[0]}"
            )
        return {"image": torch.stack(list(good.values())), "files": list(good), "bad": bad}

    def _report_unreadable(self, top: Path, bad: list[str]) -> None:
        if not bad:
            return
        named = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        if self.unreadable == "fail":
            raise ValueError(
                f"{len(bad)} unreadable image{'s' * (len(bad) != 1)} in {top}: {named}; "
                "fix or remove them, or set dataset.unreadable=skip"
            )
        log.warning("skipped unreadable images in %s (%d): %s", top, len(bad), ", ".join(bad))


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


def list_images(root: Path, top: Path, names: list[str]) -> list[Path]:
    """Return image files of the given classes in a fixed order; other files are logged.

    Raises:
        ValueError: If a link leads out of ``root``.
    """
    inside = root.resolve()
    found: list[Path] = []
    other: list[str] = []
    for name in names:
        for path in (top, top / name, *sorted((top / name).rglob("*"))):
            if path != root and path.is_symlink() and leads_out(path, inside):
                raise ValueError(f"dataset.root: {path} links to something outside of {root}")
            if path.is_dir():
                continue
            if not _is_text(path.name):
                raise ValueError(
                    f"dataset.root: the name of {os.fsencode(path)!r} is not UTF-8; rename it"
                )
            if path.suffix.lower() in SUFFIXES:
                found.append(path)
            elif not path.name.startswith("."):
                other.append(path.relative_to(top).as_posix())
    if other:
        log.warning(
            "ignored files in %s that are no images (%d): %s", top, len(other), ", ".join(other[:5])
        )
    return found


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


def show_progress(
    items: Iterable[Any], total: int, title: str = "decoding images"
) -> Iterable[Any]:
    """Show a progress bar on a terminal."""
    from rich.progress import track

    if not sys.stderr.isatty():
        return items
    console = make_console(stderr=True)
    return track(items, title, total=total, console=console, transient=True)
