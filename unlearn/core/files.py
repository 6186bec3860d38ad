"""Opening, atomic writing and hashing of files."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}

ZIP_START, ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
ZIP_TAIL = 22 + 65535  # bytes: the end of an archive with the longest comment


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a temporary file with ``write`` and rename it to ``path``, in a new folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file, UTF-8, by rename."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself is neither."""
    if entry.is_symlink():
        return os.path.isdir(entry.path)  # ``entry.is_dir`` raises an error
    return entry.is_dir()


def open_regular_file(path: Path) -> io.BufferedReader:
    """Return a regular file, opened to read bytes; never waits, as for the writer of a FIFO.

    Raises:
        OSError: If it cannot be opened or is something else.
    """
    _check_regular(os.stat(path))  # a socket cannot be opened at all
    without_waiting = getattr(os, "O_NONBLOCK", 0)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | without_waiting))
    try:
        _check_regular(os.fstat(file.fileno()))  # it may have been replaced in between
    except OSError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"{kind}, not a file")


def check_plausible(path: Path) -> None:
    """Check that a file can be a whole checkpoint, without reading all of it.

    Raises:
        OSError: If it cannot be opened.
        ValueError: With the reason, if it is larger than the memory, an archive without its end, or
            begins with zeros, as a file does whose space was only reserved.
    """
    with open_regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size > memory:
            raise ValueError(
                f"it has {size:,} bytes, more than the memory of this machine ({memory:,})"
            )
        start = file.read(8)
        if start == bytes(8):
            raise ValueError("it begins with zeros: it was not written completely")
        if start.startswith(ZIP_START):
            file.seek(-min(size, ZIP_TAIL), os.SEEK_END)
            if ZIP_END not in file.read():
                raise ValueError("it is not complete: the end of the archive is missing")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file.

    Of a file that ``check_plausible`` refuses, which may be huge, it is that of the reason: those who
    read the file will report it.

    Raises:
        OSError: If it cannot be opened.
    """
    try:
        check_plausible(path)
    except ValueError as error:
        return hashlib.sha256(str(error).encode()).hexdigest()
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
