"""Decoded images on disk, keyed by their content, safe for several processes."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

log = logging.getLogger(__name__)


def cached(folder: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what ``make`` returned the first time: tensors and plain types.

    Args:
        folder: Of the cache; made if absent.
        key: Hash of everything that determines the result.
        make: Called once, by one process at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.pt"
    with FileLock(folder / f"{key}.lock"):
        if path.exists():
            try:
                return torch.load(path, weights_only=True)
            except Exception as error:  # torn files fail in every way
                log.warning("decoding again: broken cache file %s (%s)", path, type(error).__name__)
        value = make()
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            torch.save(value, part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)  # only there if saving failed, e.g. on a full disk
        return value
