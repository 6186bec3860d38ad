"""The identity of a resolved config: the id of its run."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unlearn.core.file_digests import hash_folder
from unlearn.core.files import hash_file
from unlearn.core.job import ID_FORMAT, identify_code

KEYS_OUTSIDE_IDENTITY = (
    "hydra",
    "paths",
    "logger",
    "force",
    "save_model",
    "hub",
    "hub_private",
    "hub_license",
    "plan",
    "status",
    "dashboard",
    "tune",
    "stack",
    "chosen",
    "trainer.accelerator",
    "trainer.threads",
    "trainer.progress",
    "trainer.checkpoint_seconds",
    "dataset.root",
    "dataset.cache_dir",
)
"""Keys that are excluded from a run's identity: they do not change what is computed.

Accelerator and number of threads change rounding alone. An id says what was asked for, so that a
study has the same ids on every machine; the row says where it ran (columns ``machine/...``).
"""

FILE_KEYS = ("checkpoint", "forget_set.path", "localization.path")
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
    outside = [(content.get("paths") or {}).get(key) for key in ("root", "data_cache", "results")]
    data = content.get("dataset") or {}
    fetched = "download" in data
    if not fetched and data.get("root") is not None and Path(str(data["root"])).is_dir():
        cache = data.get("cache_dir")
        folders = tuple(Path(str(path)) for path in outside if path is not None)
        digest = hash_folder(Path(data["root"]), Path(cache) if cache else None, folders)
        data["files"] = digest  # in place of the path: a moved folder is the same data
        data.pop("root")
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
    chosen = content.get("forget_set") or {}
    if chosen.get("manifest") is not None:
        chosen["manifest"] = identify_manifest(Path(chosen["manifest"]))
    text = json.dumps(identify_code(content), sort_keys=True, separators=(",", ":"))
    digits = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"r{ID_FORMAT}-{digits}"


def identify_manifest(path: Path) -> str | None:
    """Return the hash of a manifest's forget set; None if it is, or will be, drawn by the options."""
    try:
        content = json.loads(path.read_text())
        return None if content["sha256"] == content.get("drawn") else str(content["sha256"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "unreadable"  # refused when it is read


@functools.lru_cache(maxsize=64)
def _hash_unchanged_file(path: str, modified: int, size: int) -> str:
    """Return the SHA-256 of a file; cached, since a sweep needs it once per cell."""
    return hash_file(Path(path))
