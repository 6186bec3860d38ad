"""Data sets of the Hugging Face hub, or saved by the package datasets.

Their encoded images are written once as files and then read as those of a table, so that they have
names, can be listed, and use the cache of decoded images.
"""

import hashlib
import importlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from unlearn.core.folder_layout import TEST_NAMES, TRAIN_NAMES
from unlearn.core.image_table import ImageTable as Listing
from unlearn.core.image_table import TableLine, sort_classes
from unlearn.data.datasets.base import Dataset, DatasetOptions
from unlearn.data.datasets.image_decoding import MAX_PIXELS
from unlearn.data.datasets.image_folder import SUFFIXES
from unlearn.data.datasets.image_store import show_progress
from unlearn.data.datasets.image_table import ImageTable

log = logging.getLogger(__name__)

SIGNATURES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}


@dataclass(frozen=True, kw_only=True)
class HuggingFaceDataset(DatasetOptions):
    """Images and labels of a data set of the hub, or of a folder written by ``save_to_disk``.

    Attributes:
        name: Name on the hub; None: ``path`` is read.
        path: Folder written by ``save_to_disk``; nothing is downloaded.
        subset: Configuration of the data set on the hub; None: its only one.
        revision: Revision on the hub; None: the latest.
        image_column: Column of the images; None: the only one of type Image.
        label_column: Column of the labels; None: the only one of type ClassLabel.
        train_split: Split of the training images; None: train or training.
        test_split: Split of the test images; None: the first of ``TEST_NAMES``; split off if none.
        test_fraction: Fraction of each class used for testing if there is no test split.
        unreadable: "fail" lists unreadable images and stops, "skip" ignores them.
        cache_dir: Folder of the image files and of the cache of decoded images.
        max_pixels: Pixels of the largest image that is decoded; larger ones are unreadable.
        store: How large sets of images are kept, see ``ImageFolder``.
        decode: Where encoded images are decoded, see ``ImageFolder``.
    """

    name: str | None
    path: str | None
    subset: str | None
    revision: str | None
    image_column: str | None
    label_column: str | None
    train_split: str | None
    test_split: str | None
    test_fraction: float
    unreadable: str
    cache_dir: str
    max_pixels: int = MAX_PIXELS
    store: str = "auto"
    decode: str = "cpu"

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        super().__post_init__()
        if (self.name is None) == (self.path is None):
            raise ValueError(
                "dataset=huggingface needs dataset.name, a data set of the hub, or dataset.path, a "
                f"folder saved by datasets; got {self.name} and {self.path}"
            )
        self._make_table("")

    def load(self) -> Dataset:
        """Return the data set; its images are written as files once.

        Raises:
            ValueError: If the package is not installed, or the data cannot be loaded.
        """
        splits = self._open_splits()
        train, test = self._choose_splits(splits)
        chosen = {name: splits[name] for name in (train, test) if name is not None}
        image, label = self._choose_columns(splits[train])
        classes = getattr(splits[train].features[label], "names", None)
        folder = _export_images(chosen, image, label, Path(self.cache_dir) / "huggingface")
        listed = {name: list(_list_lines(chosen[name], name, label, folder)) for name in chosen}
        names = tuple(classes or sort_classes({line.label for line in listed[train]}))
        found = Listing(names, tuple(listed[train]), tuple(listed[test]) if test else None)
        table = self._make_table(str(folder))
        log.info("images: %s", found.describe(Path(self.path or str(self.name))))
        return table.load_table(found)

    def _make_table(self, folder: str) -> ImageTable:
        shared = {f.name for f in fields(ImageTable)} - {"root", "path", "classes"}
        return ImageTable(**{key: getattr(self, key) for key in shared}, path=folder, root=folder)

    def _open_splits(self) -> dict[str, Any]:
        """Return the splits by name."""
        try:
            datasets: Any = importlib.import_module("datasets")
        except ImportError as error:
            raise ValueError(
                "dataset=huggingface needs datasets: pip install 'unlearn-bench[hf]'"
            ) from error
        if self.path is not None:
            try:
                found = datasets.load_from_disk(self.path)
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"dataset.path: {self.path} is no folder saved by datasets: {_first_line(error)}"
                ) from error
        else:
            try:
                found = datasets.load_dataset(str(self.name), self.subset, revision=self.revision)
            except (OSError, ValueError, RuntimeError) as error:
                raise ValueError(
                    f"cannot load dataset.name={self.name} from the hub ({_first_line(error)}); "
                    f"without network: load_dataset('{self.name}').save_to_disk(folder) elsewhere, "
                    "then dataset.path=folder"
                ) from error
        return dict(found) if isinstance(found, Mapping) else {"train": found}

    def _choose_splits(self, splits: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return the names of the splits for training and testing; None: there is none."""
        for key, name in (("train_split", self.train_split), ("test_split", self.test_split)):
            if name is not None and name not in splits:
                raise ValueError(f"dataset.{key} must be one of {', '.join(splits)}, got {name}")
        train = self.train_split or next((n for n in TRAIN_NAMES if n in splits), None)
        if train is None:
            raise ValueError(f"dataset.train_split must be set to one of {', '.join(splits)}")
        test = self.test_split or next((n for n in TEST_NAMES if n in splits and n != train), None)
        if test == train:
            raise ValueError(f"dataset.train_split and dataset.test_split are both {test}")
        return train, test

    def _choose_columns(self, split: Any) -> tuple[str, str]:
        """Return the columns of images and labels."""
        kinds = {name: type(kind).__name__ for name, kind in split.features.items()}
        chosen = []
        for key, given, kind in (
            ("image_column", self.image_column, "Image"),
            ("label_column", self.label_column, "ClassLabel"),
        ):
            found = [given] if given is not None else [n for n in kinds if kinds[n] == kind]
            if len(found) != 1 or found[0] not in kinds:
                raise ValueError(
                    f"dataset.{key} must be set to one of the columns "
                    f"{', '.join(f'{n} ({k})' for n, k in kinds.items())}"
                    + (f", got {given}" if given is not None else "")
                )
            chosen.append(found[0])
        if kinds[chosen[0]] != "Image":
            raise ValueError(
                f"dataset.image_column={chosen[0]} holds {kinds[chosen[0]]}, not images"
            )
        return chosen[0], chosen[1]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _export_images(splits: Mapping[str, Any], image: str, label: str, home: Path) -> Path:
    """Return the folder of the image files of the splits, written on first use.

    It is renamed to its final name last, so that it is complete if it exists.
    """
    state = [
        [name, split.num_rows, image, label,
         [(f["filename"], *_read_state(f["filename"])) for f in split.cache_files]]
        for name, split in splits.items()
    ]  # fmt: skip
    folder = home / hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():  # by another process
            return folder
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for name, split in splits.items():
            (part / name).mkdir(parents=True)
            rows = show_progress(_iterate_bytes(split, image), split.num_rows, "writing images")
            names = []
            for number, (content, suffix) in enumerate(rows):
                names.append(f"{name}/{number:07d}{suffix}")
                (part / names[-1]).write_bytes(content)
            (part / f"{name}.json").write_text(json.dumps(names))
        part.rename(folder)
    return folder


def _read_state(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _iterate_bytes(split: Any, image: str) -> Iterator[tuple[bytes, str]]:
    """Yield encoded images and suffixes for their files."""
    encoded = importlib.import_module("datasets").Image(decode=False)
    for row in split.select_columns([image]).cast_column(image, encoded):
        content, path = row[image]["bytes"], row[image]["path"] or ""
        if content is None:
            content = Path(path).read_bytes()
        suffix = Path(path).suffix.lower()
        sniffed = next((s for mark, s in SIGNATURES.items() if content.startswith(mark)), ".img")
        yield content, suffix if suffix in SUFFIXES else sniffed


def _list_lines(split: Any, name: str, label: str, folder: Path) -> Iterator[TableLine]:
    """Yield path and class of each image of a split."""
    classes = getattr(split.features[label], "names", None)
    files = json.loads((folder / f"{name}.json").read_text())
    for number, (file, value) in enumerate(zip(files, split[label], strict=True)):
        known = isinstance(value, int) and value >= 0 if classes else value not in (None, "")
        if not known:
            raise ValueError(
                f"row {number} of the split {name} has no label: choose another split "
                "(dataset.train_split, dataset.test_split)"
            )
        yield TableLine(number, file, classes[value] if classes else str(value), name)
