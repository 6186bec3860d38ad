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
    """Return what ``make`` returned the first time: tensors and plain types.

    A folder that cannot be written to costs a warning, and the next process the same work.

    Args:
        folder: Of the cache; made if absent.
        key: Hash of everything that determines the result.
        make: Called once, by one process at a time.
    """
    path = folder / f"{key}.pt"
    value = _read_cache(
        path
    )  # without the lock: files come by rename, and the folder may be read-only
    if value is not None:
        return value
    lock = FileLock(folder / f"{key}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        log.warning("decoded images are not kept: %s", error)
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
    """Return what a file holds; None if there is none, or none that can be read safely."""
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # torn files fail in every way
        log.warning("decoding again: broken cache file %s (%s)", path, type(error).__name__)
        return None


def _write_cache(path: Path, value: dict[str, Any]) -> None:
    """Keep a value by rename, or say why it is not kept: a full disk ends no run here."""
    try:
        write_atomically(path, lambda part: torch.save(value, part))
    except (OSError, RuntimeError) as error:  # torch's writer raises its own kind
        log.warning("decoded images are not kept: %s (%s)", path, str(error).splitlines()[0])
