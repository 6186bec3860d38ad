"""Tables of other programs that list suspicious images: cleanlab's label issues, fastdup's outliers.

cleanlab: one row per training sample with ``is_label_issue``, ``given_label``, ``predicted_label``,
written with or without its index; only rows marked as an issue count. The predicted label is a guess,
not a true label. fastdup: ``outliers`` (``filename_outlier``, ``outlier``) and ``invalid_instances``
(``filename``, ``error_code``); a file may be in several rows.
"""

from collections.abc import Sequence

ISSUE = "is_label_issue"
ROW_NAMES = ("", "unnamed: 0", "index", "id", "file", "filename", "file_name", "path", "image")
"""Columns that name a sample of cleanlab's table; without one, rows are in the order of the data."""
OUTLIERS = ("filename_outlier", "img_filename_outlier", "outlier")
BROKEN = "error_code"
TRUE_WORDS, FALSE_WORDS = ("true", "1", "1.0"), ("false", "0", "0.0")

Row = tuple[int, Sequence[str]]
"""Number of a line and its cells."""


def find_issues(rows: Sequence[Row]) -> list[tuple[int, str]] | None:
    """Return line and name of each suspicious image; None if it is no such table.

    Args:
        rows: Lines that are neither empty nor comments; the first is the heading.

    Raises:
        ValueError: If a cell of ``is_label_issue`` is neither true nor false, or there is no issue.
    """
    if not rows:
        return None
    heading = [cell.lower() for cell in rows[0][1]]
    if ISSUE in heading:
        return _read_label_issues(heading, rows[1:])
    column = next((name for name in OUTLIERS if name in heading), None)
    if column is None and BROKEN in heading and "filename" in heading:
        column = "filename"
    if column is None:
        return None
    place = heading.index(column)
    found = {_cell(cells, place): number for number, cells in reversed(rows[1:])}
    return sorted((number, name) for name, number in found.items() if name)


def _read_label_issues(heading: Sequence[str], rows: Sequence[Row]) -> list[tuple[int, str]]:
    mark = heading.index(ISSUE)
    place = next((heading.index(name) for name in ROW_NAMES if name in heading), None)
    out = []
    for row, (number, cells) in enumerate(rows):
        word = _cell(cells, mark).lower()
        if word not in (*TRUE_WORDS, *FALSE_WORDS):
            raise ValueError(
                f"line {number}: {ISSUE} must be True or False, got '{_cell(cells, mark)}'"
            )
        if word in TRUE_WORDS:
            out.append((number, str(row) if place is None else _cell(cells, place)))
    if not out:
        raise ValueError(f"no row has {ISSUE}=True")
    return out


def _cell(cells: Sequence[str], place: int) -> str:
    return cells[place] if place < len(cells) else ""
