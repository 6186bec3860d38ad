"""Content hashes of the files of a folder, kept between runs.

A file of unchanged size and modification time is not read again. A file modified within ``RECENT``
seconds of its reading could change again within the clock's resolution: it is not kept.
"""

import functools
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from unlearn.core.files import is_folder, open_regular_file, write_text_atomically

RECENT = 2.0
MAX_BYTES = 4 * 2**30
FORMAT = 1

Known = tuple[int, int, str]
"""Size, modification time and hash of a file."""


class FileDigests:
    """Hashes of the files below a folder."""

    def __init__(self, root: Path, cache: Path | None, max_bytes: int = MAX_BYTES) -> None:
        """Read the hashes kept of an earlier run.

        Args:
            root: The folder.
            cache: Folder where hashes are kept; None: nowhere.
            max_bytes: Larger files are not read: their hash is that of size and modification time.
        """
        self.root, self.max_bytes = root.resolve(), max_bytes
        self._starts = {os.path.join(place, "") for place in (root, os.path.abspath(root))}
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        self._path = None if cache is None else cache / "digests" / f"{name}.json"
        self._known = self._read_known()

    def hash_files(self, paths: Iterable[Path | str]) -> list[str]:
        """Return the hash of each file, "unreadable" where it cannot be read or is no file."""
        paths = [os.fspath(path) for path in paths]
        out: list[str] = []
        stale: list[tuple[int, str, tuple[int, int]]] = []
        known = self._known
        for path in paths:
            state = _read_state(path)
            if state is None:
                out.append("unreadable")
                continue
            if state[0] > self.max_bytes:
                out.append(f"large {state[0]} {state[1]}")
                continue
            name = self._get_name(path)
            kept = known.get(name)
            if kept is not None and kept[0] == state[0] and kept[1] == state[1]:
                out.append(kept[2])
            else:
                stale.append((len(out), name, state))
                out.append("")
        if stale:
            self._hash_stale(paths, stale, out)
        return out

    def _hash_stale(
        self, paths: list[str], stale: list[tuple[int, str, tuple[int, int]]], out: list[str]
    ) -> None:
        """Hash files into their places of ``out``, and keep the hashes of files that are at rest."""
        recent = (time.time() - RECENT) * 1e9
        with ThreadPoolExecutor() as pool:
            new = pool.map(lambda one: _hash_content(Path(paths[one[0]])), stale)
            for (place, name, state), digest in zip(stale, new, strict=True):
                out[place] = digest
                if digest != "unreadable" and state[1] < recent:
                    self._known[name] = (*state, digest)
        self._write_known()

    def _get_name(self, path: str) -> str:
        """Return the name under which a hash is kept; paths below the folder take no system call."""
        for start in self._starts:
            if path.startswith(start):
                return path[len(start) :]
        return os.path.relpath(path, self.root)

    def _read_known(self) -> dict[str, Known]:
        if self._path is None:
            return {}
        try:
            status = self._path.stat()
            return dict(_read_hashes(self._path, status.st_mtime_ns, status.st_ino))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            return {}  # absent or broken: read the files again

    def _write_known(self) -> None:
        if self._path is None:
            return
        content = {"format": FORMAT, "root": str(self.root), "files": self._known}
        try:
            write_text_atomically(self._path, json.dumps(content, separators=(",", ":")))
        except (OSError, ValueError):  # read-only or full: read the files again next time
            return


@functools.lru_cache(maxsize=2)
def _read_hashes(path: Path, modified: int, inode: int) -> dict[str, Known]:
    """Return the hashes in a file; cached, since a run needs them for several lists of files."""
    content = json.loads(path.read_text())
    files = content["files"] if content["format"] == FORMAT else {}
    return {str(k): (int(v[0]), int(v[1]), str(v[2])) for k, v in files.items()}


def _read_state(path: Path | str) -> tuple[int, int] | None:
    """Return size and modification time of a regular file, None of anything else."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _hash_content(path: Path) -> str:
    try:
        with open_regular_file(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return "unreadable"


@functools.lru_cache(maxsize=16)
def hash_folder(root: Path, cache: Path | None, outside: tuple[Path, ...] = ()) -> str:
    """Return the hash of names and contents of the files below a folder, 16 hex digits.

    Hidden files and the folders ``outside`` are left out. Cached: an identity does not change while
    a process runs.
    """
    skipped = {path.resolve() for path in outside}
    names = list(_walk_files(str(root), "", skipped))
    paths = [os.path.join(root, name) for name in names]
    digest = hashlib.sha256()
    for name, content in zip(names, FileDigests(root, cache).hash_files(paths), strict=True):
        named = os.fsencode(name)
        digest.update(b"%d %s %s" % (len(named), named, content.encode()))
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=16)
def hash_table(path: Path, root: Path, cache: Path | None, paths: tuple[str, ...]) -> str:
    """Return the hash of a table and of the listed files ``paths`` below ``root``, 16 hex digits.

    Cached, as ``hash_folder``.
    """
    digest = hashlib.sha256(_hash_content(path).encode())
    for content in FileDigests(root, cache).hash_files([root / name for name in paths]):
        digest.update(content.encode())
    return digest.hexdigest()[:16]


def _walk_files(folder: str, below: str, skipped: set[Path]) -> Iterator[str]:
    """Yield the names of the files below a folder, sorted by the parts of their paths.

    Links to folders are not followed.
    """
    try:
        with os.scandir(folder) as entries:
            content = sorted(entries, key=lambda entry: entry.name)
    except OSError:  # no permission, or gone
        return
    for entry in content:
        if entry.name.startswith("."):
            continue
        name = f"{below}{entry.name}"
        if not is_folder(entry):
            yield name
        elif not entry.is_symlink() and Path(entry.path).resolve() not in skipped:
            yield from _walk_files(entry.path, f"{name}/", skipped)
