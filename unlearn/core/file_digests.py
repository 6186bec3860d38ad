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

from unlearn.core.files import open_regular_file, write_text_atomically

RECENT = 2.0
MAX_BYTES = 4 * 2**30
FORMAT = 1


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
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        self._path = None if cache is None else cache / "digests" / f"{name}.json"
        self._known = self._read_known()

    def hash_files(self, paths: Iterable[Path]) -> list[str]:
        """Return the hash of each file, "unreadable" where it cannot be read or is no file."""
        paths = list(paths)
        states = [_read_state(path) for path in paths]
        names = [os.path.relpath(path, self.root) for path in paths]
        stale = [
            i for i, state in enumerate(states)
            if state is not None
            and state[0] <= self.max_bytes
            and self._known.get(names[i], [None])[:2] != list(state)
        ]  # fmt: skip
        with ThreadPoolExecutor() as pool:
            new = dict(zip(stale, pool.map(lambda i: _hash_content(paths[i]), stale), strict=True))
        out = []
        recent = (time.time() - RECENT) * 1e9
        for i, (name, state) in enumerate(zip(names, states, strict=True)):
            if state is None:
                out.append("unreadable")
                continue
            if state[0] > self.max_bytes:
                out.append(f"large {state[0]} {state[1]}")
                continue
            digest = new[i] if i in new else self._known[name][2]
            out.append(digest)
            if digest != "unreadable" and state[1] < recent:
                self._known[name] = [*state, digest]
        if new:
            self._write_known()
        return out

    def _read_known(self) -> dict[str, list[object]]:
        try:
            content = json.loads(self._path.read_text()) if self._path is not None else {}
            files = content["files"] if content["format"] == FORMAT else {}
            return {str(k): [int(v[0]), int(v[1]), str(v[2])] for k, v in files.items()}
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


def _read_state(path: Path) -> tuple[int, int] | None:
    """Return size and modification time of a regular file, None of anything else."""
    try:
        status = path.stat()
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
    paths = sorted(_walk_files(root, skipped))
    digest = hashlib.sha256()
    for path, content in zip(paths, FileDigests(root, cache).hash_files(paths), strict=True):
        name = os.fsencode(os.path.relpath(path, root))
        digest.update(b"%d %s %s" % (len(name), name, content.encode()))
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


def _walk_files(root: Path, skipped: set[Path]) -> Iterator[Path]:
    for folder, inner, names in os.walk(root):
        here = Path(folder)
        inner[:] = [
            n for n in inner if not n.startswith(".") and (here / n).resolve() not in skipped
        ]
        yield from (here / name for name in names if not name.startswith("."))
