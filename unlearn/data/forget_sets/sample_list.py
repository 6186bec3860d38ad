"""A user's list of bad training images: file names or ids, true labels where known.

CSV or text, one image a line, ``name[,label]``, with or without a heading line; or a JSON list of
ids; or a table of cleanlab or fastdup. Errors name the line. Shapes: N training samples, n listed ones.
"""

import codecs
import csv
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn.data.forget_sets.issue_tables import find_issues

HEADINGS = {"file", "filename", "file_name", "name", "path", "id", "index", "image", "sample"}


@dataclass(frozen=True)
class ListLine:
    """One line of a list: its number, the image's name or id, and the label's text or None."""

    number: int
    name: str
    label: str | None


def read_lines(path: Path, key: str = "forget_set.path") -> list[ListLine]:
    """Return the lines of a CSV or text file without blank lines, comments (#) and heading.

    ``key`` names the option in messages.

    Raises:
        ValueError: If it cannot be read as text, or names no image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{key}: cannot read {path}: {error}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{key}: {path} is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{key}: cannot read {path}: {error}") from error
    mark = max(",;\t", key=text.count)
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=mark))
    except csv.Error as error:  # a field above csv's limit, a NUL
        raise ValueError(f"{key}: {path} is no list of images: {error}") from error
    lines = [(number, [cell.strip() for cell in row]) for number, row in enumerate(rows, start=1)]
    lines = [(number, cells) for number, cells in lines if any(cells) and cells[0][:1] != "#"]
    try:
        issues = find_issues(lines)
    except ValueError as error:
        raise ValueError(f"{key}: {path}, {error}") from error
    if issues is not None:
        return [ListLine(number, name, None) for number, name in issues]
    out = []
    for number, cells in lines:
        if not out and cells[0].lower() in HEADINGS:
            continue
        out.append(ListLine(number, cells[0], (cells[1] or None) if len(cells) > 1 else None))
    if not out:
        raise ValueError(f"{key}: {path} names no image")
    return out


class ImageIndex:
    """Finds training images by name or id."""

    def __init__(
        self, files: Sequence[str] | None, total: int, *, test_folder: bool = False
    ) -> None:
        """Store the names.

        Args:
            files: ``<class>/<name>`` of each training image; None if the data has no files.
            total: N.
            test_folder: Whether there is a folder ``test`` next to ``train``.
        """
        self.test_folder = test_folder
        self.total = total
        self.files = files
        self.row_by_path = {name: i for i, name in enumerate(files or ())}
        self.rows_by_file_name: dict[str, list[int]] = {}
        for name, i in self.row_by_path.items():
            self.rows_by_file_name.setdefault(name.rpartition("/")[2], []).append(i)

    def find_file(self, name: str) -> int | None:
        """Return the row of an image by its file name; None if there is none."""
        parts = _split_path(name)
        for start in range(len(parts)):
            row = self.row_by_path.get("/".join(parts[start:]))
            if row is not None:
                return row if self._is_train_folder(parts[:start]) else None
        found = self.rows_by_file_name.get(parts[0], []) if len(parts) == 1 else []
        return found[0] if len(found) == 1 else None

    def _is_train_folder(self, above: Sequence[str]) -> bool:
        return not (self.test_folder and above and above[-1] == "test")

    def find_row(self, name: str) -> int:
        """Return the row of an image.

        Args:
            name: A row number; or a path with either kind of slash: relative to the folder of the
                class folders or to one above it, absolute, or only the file name if it is unique.

        Raises:
            ValueError: If the name is invalid.
        """
        row = self.find_file(name)
        if row is not None:
            return row
        if name.lstrip("+-").isdigit():
            if not 0 <= int(name) < self.total:
                raise ValueError(f"{name} is not an id in 0..{self.total - 1}")
            return int(name)
        if self.files is None:
            raise ValueError(
                f"'{name}' is not an id in 0..{self.total - 1}, and the data has no files"
            )
        parts = _split_path(name)
        found = self.rows_by_file_name.get(parts[0], []) if len(parts) == 1 else []
        if found:
            some = ", ".join(self.files[i] for i in found[:3])
            raise ValueError(f"'{name}' is the name of {len(found)} images ({some}, ...)")
        if "test" in parts[:-1] and self.test_folder:
            raise ValueError(f"'{name}' is a test image; only training images can be forgotten")
        near = difflib.get_close_matches("/".join(parts[-2:]), list(self.row_by_path), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"'{name}' is not one of the {self.total} training images{hint}")


def _split_path(name: str) -> list[str]:
    return [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]


def class_of(text: str, class_names: Sequence[str]) -> int:
    """Return a class by its name or index.

    Raises:
        ValueError: If there is no such class.
    """
    if text in class_names:
        return list(class_names).index(text)
    if text.isdigit() and int(text) < len(class_names):
        return int(text)
    some = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
    raise ValueError(f"the true label '{text}' is not a class; classes are {some}")


def parse_list(
    path: Path, names: ImageIndex, class_names: Sequence[str], key: str = "forget_set.path"
) -> Mapping[int, int | None]:
    """Return the rows of a list, each with its true class or None.

    Args:
        path: CSV or text.
        names: Of the training images.
        class_names: K names.
        key: Name of the option in messages.

    Raises:
        ValueError: At the first invalid line; names it.
    """
    found: dict[int, int | None] = {}
    where: dict[int, int] = {}
    for line in read_lines(path, key):
        try:
            row = names.find_row(line.name)
            if row in found:
                raise ValueError(f"'{line.name}' is already in line {where[row]}")
            found[row] = None if line.label is None else class_of(line.label, class_names)
        except ValueError as error:
            raise ValueError(f"{key}: {path}, line {line.number}: {error}") from error
        where[row] = line.number
    return found


def read_names(path: Path) -> list[str]:
    """Return the names in a CSV or text file unchanged."""
    return [line.name for line in read_lines(path)]


def is_json(path: Path) -> bool:
    """Return whether a file holds a JSON list, whatever its suffix."""
    if path.suffix == ".json":
        return True
    try:
        return isinstance(json.loads(path.read_text()), list)
    except (OSError, ValueError):
        return False
