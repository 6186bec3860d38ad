"""Row files: which of them count as rows, and what happens to the others.

A file ``<run id>/row-<step>.json`` counts if it holds a JSON object of its format, run and step,
with a matching checksum. Rows without format and checksum are of older versions and count. Any
other row file is renamed to ``row-<step>.json.broken``, never deleted, and is restored from its
line in ``results.jsonl`` if that line is intact; otherwise the run counts as not done. An intact
line also restores a row file that is absent from the folder of a run that had come to its end. A run
is removed by removing its folder: its line is then dropped with the next table, and restores nothing
when the same run starts again.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from unlearn.core.files import write_text_atomically
from unlearn.storage.record import STATUSES, STORED

log = logging.getLogger(__name__)

FORMAT = 1
MIRROR = "results.jsonl"
LOCK = ".results.lock"
LAST_FILE = "forget_set.json"  # the last file that a run writes before its rows
ROW_FILE = re.compile(r"row-(\d+)\.json")
LINE_START = re.compile(rb'\{"run_id": "([^"\\]+)", "step": \d+,')
NOTICE_SECONDS = 2.0  # a wait for the lock that is longer is announced

Row = dict[str, Any]


class LaterFormatError(ValueError):
    """A row was written by a later version: it does not count here, and is not changed."""


_warned: set[str] = set()  # a command reads a run's folder several times


def seal_row(row: Mapping[str, Any]) -> Row:
    """Return a row with the columns ``format`` and ``sha256``."""
    content = {**row, "format": FORMAT}
    return content | {"sha256": hash_row(content)}


def hash_row(row: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a row as JSON with sorted keys, without its column ``sha256``."""
    content = {key: value for key, value in row.items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def unseal_row(row: Mapping[str, Any]) -> Row:
    """Return a row without the columns of ``seal_row``."""
    return {key: value for key, value in row.items() if key not in STORED}


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of a run's folder by step, with the columns of ``seal_row``.

    Broken row files are renamed and restored where possible; in a read-only store they are only
    named in a warning.
    """
    found = _scan_folder(folder)
    if not found.faults and not found.lost:
        return list(found.rows.values())
    try:
        with lock_store(folder.parent, f"repair the rows of {folder.name}"):
            return settle_rows(folder)
    except OSError as error:
        faults = {step: "it is absent" for step in found.lost} | found.faults
        for step, why in faults.items():
            path = folder / f"row-{step}.json"
            _warn_once(f"{path} is no row: {why}; not repaired: {error.strerror or error}")
        return list(found.rows.values())


def read_row(folder: Path, step: int = 0) -> Row | None:
    """Return one row of a run without the columns of ``seal_row``; None if it is not recorded."""
    return next((unseal_row(row) for row in read_rows(folder) if row["step"] == step), None)


def settle_rows(folder: Path) -> list[Row]:
    """Return the rows of a run's folder after renaming and restoring; the store is locked."""
    found = _scan_folder(folder)
    for step, why in found.faults.items():
        path = folder / f"row-{step}.json"
        end = f"restored from {MIRROR}" if step in found.lost else "the same command runs it again"
        try:
            name = _set_aside(path, keep=step in found.lost)
        except OSError as error:
            _warn_once(f"{path} is no row: {why}; not renamed: {error.strerror}")
            continue
        if step in found.lost:
            _restore_row(path, found.lost[step])
        _warn_once(f"{path} is no row: {why}; renamed to {name}; {end}")
    for step in found.lost.keys() - found.faults.keys():
        path = folder / f"row-{step}.json"
        if path.exists():  # not readable: its line holds the row
            continue
        _restore_row(path, found.lost[step])
        _warn_once(f"{path} is absent; restored from {MIRROR}")
    return [row for _, row in sorted({**found.rows, **found.lost}.items())]


@contextlib.contextmanager
def lock_store(root: Path, purpose: str) -> Iterator[None]:
    """Hold the lock of a results folder; a wait of more than two seconds is announced.

    Args:
        root: The results folder, created if absent.
        purpose: What the lock is needed for, as an infinitive.

    Raises:
        OSError: If the folder cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / LOCK, poll_interval=0.005)
    try:
        lock.acquire(timeout=NOTICE_SECONDS)
    except Timeout:
        log.warning(
            "process %d waits for another process to release %s, to %s",
            os.getpid(), root / LOCK, purpose,
        )  # fmt: skip
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Scan(NamedTuple):
    """Content of a run's folder: rows, faults of row files, and intact lines without a row."""

    rows: dict[int, Row]
    faults: dict[int, str]
    lost: dict[int, Row]


def _scan_folder(folder: Path) -> _Scan:
    rows: dict[int, Row] = {}
    faults: dict[int, str] = {}
    unreadable = set()
    found = [(int(m[1]), p) for p in folder.glob("row-*.json") if (m := ROW_FILE.fullmatch(p.name))]
    for step, path in sorted(found):
        try:
            rows[step] = _parse_row(path.read_bytes(), folder.name, step)
        except LaterFormatError as error:
            unreadable.add(step)
            _warn_once(f"{path} does not count: {error}")
        except (ValueError, FileNotFoundError, IsADirectoryError) as error:
            faults[step] = str(error)
        except OSError as error:  # it may hold a row: neither renamed nor replaced
            unreadable.add(step)
            _warn_once(f"{path} cannot be read: {error.strerror}")
    lost: dict[int, Row] = {}
    complete = (folder / LAST_FILE).exists()
    wanted = faults.keys() | unreadable
    if not wanted and not complete:
        return _Scan(rows, faults, lost)
    for line in _read_lines(folder.parent / MIRROR).get(folder.name, ()):
        try:
            step = json.loads(line)["step"]
            row = _parse_row(line, folder.name, step)
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
        if step not in rows and (complete or step in wanted):
            lost[step] = row
    return _Scan(rows, faults, lost)


def _parse_row(content: bytes, run_id: str, step: int) -> Row:
    """Return the row that a file or line holds.

    Raises:
        ValueError: If it holds no row of this run and step; says why.
    """
    try:
        row = json.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ValueError("it is not text") from error
    except (ValueError, RecursionError) as error:
        why = f"it is not JSON ({error})" if content.strip() else "it is empty"
        raise ValueError(why) from error
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    named = (row.get("run_id"), row.get("step"))
    if named != (run_id, step):
        raise ValueError(f"it is of run {named[0]}, step {named[1]}")
    number = row.get("format", FORMAT)
    if isinstance(number, int) and number > FORMAT:
        raise LaterFormatError(f"its format is {number}, this version reads {FORMAT}")
    if number != FORMAT:
        raise ValueError(f"its format is {number}, not {FORMAT}")
    if "sha256" in row and row["sha256"] != hash_row(row):
        raise ValueError("its checksum is wrong")
    if row.get("status") not in STATUSES:
        raise ValueError(f"its status is {row.get('status')}, not {', '.join(STATUSES)}")
    return row


def _set_aside(path: Path, *, keep: bool) -> str:
    """Give a broken row file another name and return it.

    Args:
        path: The file.
        keep: Keep the file's own name too, until another file replaces it: a reader without the lock
            must not find the row absent in between.
    """
    new = path.with_name(f"{path.name}.broken")
    number = 1
    while new.exists():
        number += 1
        new = path.with_name(f"{path.name}.broken-{number}")
    if keep:
        with contextlib.suppress(OSError):  # a folder, or a file system without links
            os.link(path, new)
            return new.name
    path.rename(new)
    return new.name


def _restore_row(path: Path, row: Row) -> None:
    """Write a row file; if that is not possible, its line alone holds the row."""
    try:
        write_text_atomically(path, format_row(row))
    except OSError as error:
        _warn_once(f"{path} is not written: {error.strerror}")


def format_row(row: Row) -> str:
    """Return the text of a row file."""
    return json.dumps(row, indent=1) + "\n"


def _read_lines(mirror: Path) -> Mapping[str, list[bytes]]:
    """Return the lines of ``results.jsonl`` by run id; those of no run are left out."""
    try:
        state = mirror.stat()
        return _index_lines(mirror, state.st_ino, state.st_size, state.st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=2)
def _index_lines(mirror: Path, *state: int) -> Mapping[str, list[bytes]]:
    """Return the lines by run id; read again when the state of the file changes."""
    lines: dict[str, list[bytes]] = {}
    for line in mirror.read_bytes().splitlines():
        if start := LINE_START.match(line):
            lines.setdefault(start[1].decode(errors="replace"), []).append(line)
    return lines


def _warn_once(line: str) -> None:
    if line not in _warned:
        _warned.add(line)
        log.warning("%s", line)
