"""Decoded images on disk, keyed by their content, verified when read, safe for several processes."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from unlearn.core.verified_files import check_file, set_aside, write_verified

log = logging.getLogger(__name__)


def load_or_make(folder: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the cached result of ``make``: tensors and plain types.

    A broken file is set aside and made again. If the folder is not writable, a warning is logged and
    nothing is cached.

    Args:
        folder: Folder of the cache; created if absent.
        key: Hash of everything that determines the result.
        make: Called once, by one process at a time.
    """
    path = folder / f"{key}.pt"
    # Without the lock: files are written atomically, and the folder may be read-only.
    with contextlib.suppress(ValueError):
        value = _read_cache(path, key)
        if value is not None:
            return value
    lock = FileLock(folder / f"{key}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        log.warning("decoded images are not cached: %s", error)
        return make()
    try:
        try:
            value = _read_cache(path, key)
        except ValueError as error:
            done = set_aside(path)
            log.warning("decoding again: broken cache file %s (%s); %s", path, error, done)
            value = None
        if value is None:
            value = make()
            _write_cache(path, key, value)
        return value
    finally:
        lock.release()


def _read_cache(path: Path, key: str) -> dict[str, Any] | None:
    """Return the content of a file; None if it is absent.

    Raises:
        ValueError: If it is broken or cannot be read safely.
    """
    if not path.exists():
        return None
    check_file(path, key)
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # the type depends on the content of the file
        raise ValueError(type(error).__name__) from error


def _write_cache(path: Path, key: str, value: dict[str, Any]) -> None:
    """Write a value atomically; if that fails (full disk, ...), log a warning."""
    try:
        write_verified(path, lambda part: torch.save(value, part), key)
    except (OSError, RuntimeError) as error:  # torch's writer raises its own error type
        log.warning("decoded images are not cached: %s (%s)", path, str(error).splitlines()[0])
