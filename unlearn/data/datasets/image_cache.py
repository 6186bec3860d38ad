"""Decoded images on disk, keyed by their content, safe for several processes."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from unlearn.core.files import write_atomically

log = logging.getLogger(__name__)


def load_or_make(folder: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the cached result of ``make``: tensors and plain types.

    If the folder is not writable, a warning is logged and nothing is cached.

    Args:
        folder: Folder of the cache; created if absent.
        key: Hash of everything that determines the result.
        make: Called once, by one process at a time.
    """
    path = folder / f"{key}.pt"
    value = _read_cache(
        path
    )  # without the lock: files are written atomically, and the folder may be read-only
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
        value = _read_cache(path)
        if value is None:
            value = make()
            _write_cache(path, value)
        return value
    finally:
        lock.release()


def _read_cache(path: Path) -> dict[str, Any] | None:
    """Return the content of a file; None if it is absent or cannot be read safely."""
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # torn files raise various errors
        log.warning("decoding again: broken cache file %s (%s)", path, type(error).__name__)
        return None


def _write_cache(path: Path, value: dict[str, Any]) -> None:
    """Write a value atomically; if that fails (full disk, ...), log a warning."""
    try:
        write_atomically(path, lambda part: torch.save(value, part))
    except (OSError, RuntimeError) as error:  # torch's writer raises its own error type
        log.warning("decoded images are not cached: %s (%s)", path, str(error).splitlines()[0])
