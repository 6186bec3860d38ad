"""A table of images: CSV with the columns path, label and, if wanted, split.

Read before any image is, with the standard library alone; errors name the line.
"""

import csv
import functools
import math
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn.core.folder_layout import TEST_NAMES, TRAIN_NAMES

COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "image"),
    "label": ("label", "class"),
    "split": ("split", "set"),
}
"""Names of the columns, the usual one first; upper and lower case are equal."""


@dataclass(frozen=True)
class TableLine:
    """One image: its line in the table, its path below the root with slashes, its class, its split."""

    number: int
    path: str
    label: str
    split: str | None


@dataclass(frozen=True)
class ImageTable:
    """Images of a table.

    Attributes:
        class_names: Sorted classes; in the order of their numbers if all are numbers.
        train: Training images.
        test: Test images; None: split off from ``train``.
        unused: Names of further splits.
    """

    class_names: tuple[str, ...]
    train: tuple[TableLine, ...]
    test: tuple[TableLine, ...] | None
    unused: tuple[str, ...] = ()

    def describe(self, path: Path) -> str:
        """Return one line: how many images of the table at ``path`` are used for what."""
        if self.test is None:
            return f"training and test images from {path}: {len(self.train):,}"
        rest = f"; splits not used: {', '.join(self.unused)}" if self.unused else ""
        return (
            f"{len(self.train):,} training images and {len(self.test):,} test images "
            f"({self.test[0].split}) from {path}{rest}"
        )


def read_table(path: Path, root: Path) -> ImageTable:
    """Return the images of a table; it is read again when it has changed.

    Args:
        path: The table: comma, semicolon or tab separated, UTF-8.
        root: Folder that paths are relative to; absolute paths must lie below it.

    Raises:
        ValueError: If the table is absent or invalid; the message names the line.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(f"dataset.path must be a CSV file; {path} does not exist") from error
    return _read_unchanged(path, root, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _read_unchanged(path: Path, root: Path, modified: int, size: int) -> ImageTable:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"dataset.path: {path} is not UTF-8: {error.reason}") from error
    except OSError as error:
        raise ValueError(f"dataset.path: cannot read {path}: {error.strerror}") from error
    lines = _parse_lines(path, root, text)
    _check_unique(path, lines)
    names = sort_classes({line.label for line in lines})
    if len(names) < 2:
        raise ValueError(f"dataset.path: {path} must hold two or more classes, got {list(names)}")
    return _split_lines(path, names, lines)


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Return class names in order: by value if all are finite numbers, else alphabetically."""
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        return tuple(sorted(names))
    if not all(map(math.isfinite, values.values())):
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (values[name], name)))


def _parse_lines(path: Path, root: Path, text: str) -> list[TableLine]:
    head = text.partition("\n")[0]
    rows = csv.reader(text.splitlines(keepends=True), delimiter=max(",;\t", key=head.count))
    where: dict[str, int] | None = None
    width, out = 0, []
    try:
        for cells in rows:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if where is None:
                where, width = _find_columns(path, cells), len(cells)
                continue
            if len(cells) != width:
                raise ValueError(
                    f"{path}, line {rows.line_num}: must have {width} columns, got {len(cells)}"
                )
            line = {key: cells[i] for key, i in where.items()}
            out.append(_parse_line(f"{path}, line {rows.line_num}", rows.line_num, line, root))
    except csv.Error as error:  # a field above csv's limit
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from error
    if not out:
        raise ValueError(f"dataset.path: {path} names no image")
    return out


def _find_columns(path: Path, head: Sequence[str]) -> dict[str, int]:
    """Return the position of each column."""
    lower = [cell.lower() for cell in head]
    where = {}
    for key, names in COLUMNS.items():
        found = [i for i, cell in enumerate(lower) if cell in names]
        if len(found) > 1:
            raise ValueError(
                f"{path}, line 1: {' and '.join(head[i] for i in found)} are both a {key}"
            )
        if found:
            where[key] = found[0]
    missing = [key for key in ("path", "label") if key not in where]
    if missing:
        raise ValueError(
            f"{path}, line 1: no column {' and no column '.join(missing)}; the first line must name "
            f"the columns, path,label or path,label,split, got {','.join(head)[:80]}"
        )
    return where


def _parse_line(start: str, number: int, line: dict[str, str], root: Path) -> TableLine:
    for key, value in line.items():
        if not value:
            raise ValueError(f"{start}: empty {key}")
    split = line.get("split")
    if split is not None and split.lower() not in (*TRAIN_NAMES, *TEST_NAMES):
        allowed = ", ".join((*TRAIN_NAMES, *TEST_NAMES))
        raise ValueError(f"{start}: split must be one of {allowed}, got {split}")
    place = line["path"].replace("\\", "/")
    if place.startswith("/"):
        place = os.path.relpath(place, root.absolute())
    place = posixpath.normpath(place)
    if place.startswith("../") or place in ("..", ".") or "\0" in place:
        raise ValueError(f"{start}: {line['path']} must lie below {root} (dataset.root)")
    return TableLine(number, place, line["label"], None if split is None else split.lower())


def _check_unique(path: Path, lines: Sequence[TableLine]) -> None:
    first: dict[str, int] = {}
    for line in lines:
        if line.path in first:
            raise ValueError(
                f"{path}, line {line.number}: {line.path} is already in line {first[line.path]}"
            )
        first[line.path] = line.number


def _split_lines(path: Path, names: tuple[str, ...], lines: Sequence[TableLine]) -> ImageTable:
    if lines[0].split is None:
        return ImageTable(names, tuple(lines), None)
    found = {line.split for line in lines}
    tests = [name for name in TEST_NAMES if name in found]
    train = tuple(line for line in lines if line.split in TRAIN_NAMES)
    if not train or not tests:
        raise ValueError(
            f"dataset.path: {path} holds the split {', '.join(sorted(map(str, found)))} alone; "
            "name training and test images, or leave the column out to split a test set off"
        )
    trained = {line.label for line in train}
    test = tuple(line for line in lines if line.split == tests[0])
    for line in test:
        if line.label not in trained:
            raise ValueError(
                f"{path}, line {line.number}: class {line.label} has no training images"
            )
    order = tuple(name for name in names if name in trained)
    if len(order) < 2:
        raise ValueError(f"dataset.path: {path} must hold two or more classes, got {list(order)}")
    return ImageTable(order, train, test, tuple(tests[1:]))
