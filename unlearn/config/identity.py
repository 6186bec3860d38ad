"""The identity of a resolved config: the id of its run."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unlearn.core.files import hash_file
from unlearn.core.job import ID_FORMAT, use_class_names

KEYS_OUTSIDE_IDENTITY = (
    "hydra",
    "paths",
    "logger",
    "force",
    "save_model",
    "plan",
    "status",
    "dashboard",
    "tune",
    "stack",
    "chosen",
    "trainer.progress",
    "trainer.checkpoint_seconds",
    "dataset.root",
    "dataset.cache_dir",
)
"""Keys that do not affect results and are excluded from a run's identity."""

FILE_KEYS = ("checkpoint", "forget_set.path")
"""Keys of user files, which are identified by content instead of path."""


def to_plain_config(config: DictConfig) -> dict[str, Any]:
    """Return the resolved config as plain types, without hydra's part and tuning ranges."""
    keys = [str(k) for k in config if k != "hydra"]
    content = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    assert isinstance(content, dict)
    for key in ("method", "auto_methods", "diagnosis"):
        _drop_search_ranges(content.get(key))
    return {str(k): v for k, v in content.items()}


def _drop_search_ranges(node: Any) -> None:
    """Drop the tuning ranges, including those of nested methods."""
    if isinstance(node, dict):
        node.pop("search", None)
        for part in node.values():
            _drop_search_ranges(part)


def run_id_of_config(config: DictConfig) -> str:
    """Return the id of everything that determines a run's result."""
    return compute_run_id(to_plain_config(config))


def compute_run_id(content: Mapping[str, Any]) -> str:
    """Return ``r<format>-`` and 12 hex digits for a resolved config, ``plain``.

    Top-level null values are ignored, so that a new option does not change existing ids.
    """
    content = json.loads(json.dumps({k: v for k, v in content.items() if v is not None}))
    fetched = "download" in (content.get("dataset") or {})
    for path in KEYS_OUTSIDE_IDENTITY:
        if path == "dataset.root" and not fetched:  # the folder is the data here
            continue
        *parents, leaf = path.split(".")
        node: Any = content
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(leaf, None)
    for path in FILE_KEYS:
        *parents, leaf = path.split(".")
        node = functools.reduce(lambda part, key: part.get(key) or {}, parents, content)
        file = Path(str(node.get(leaf)))
        if node.get(leaf) is not None and file.is_file():
            status = file.stat()
            node[leaf] = _hash_unchanged_file(
                str(file.resolve()), status.st_mtime_ns, status.st_size
            )
    text = json.dumps(use_class_names(content), sort_keys=True, separators=(",", ":"))
    digits = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"r{ID_FORMAT}-{digits}"


@functools.lru_cache(maxsize=64)
def _hash_unchanged_file(path: str, modified: int, size: int) -> str:
    """Return the SHA-256 of a file; cached, since a sweep needs it once per cell."""
    return hash_file(Path(path))
