"""The identity of a resolved config: the id of its run."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unlearn.core.file_digests import hash_folder, hash_table
from unlearn.core.files import hash_file
from unlearn.core.image_table import read_table
from unlearn.core.job import ID_FORMAT, drop_later_keys, identify_code

KEYS_OUTSIDE_IDENTITY = (
    "hydra",
    "paths",
    "logger",
    "force",
    "save_model",
    "hub",
    "hub_private",
    "hub_license",
    "compliance",
    "plan",
    "status",
    "dashboard",
    "tune",
    "stack",
    "clean_only",
    "chosen",
    "trainer.accelerator",
    "trainer.threads",
    "trainer.progress",
    "trainer.checkpoint_seconds",
    "trainer.evaluation_batch_bytes",
    "dataset.root",
    "dataset.cache_dir",
    "seeds.trusted",
    "trusted.cache_dir",
    "dataset.store",
)
"""Keys that are excluded from a run's identity: they do not change what is computed.

Accelerator and number of threads change rounding alone. An id says what was asked for, so that a
study has the same ids on every machine; the row says where it ran (columns ``machine/...``).
"""

FILE_KEYS = (
    "checkpoint",
    "init",
    "corruption.path",
    "forget_set.path",
    "forget_set.image",
    "localization.path",
    "dataset.classes",
    "trusted.path",
)
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
    if not fetched:
        _identify_images(data, tuple(Path(str(path)) for path in outside if path is not None))
    verified = content.get("trusted") or {}
    if verified.get("root") is not None and Path(str(verified["root"])).is_dir():
        cache = verified.get("cache_dir")
        verified["files"] = hash_folder(Path(verified["root"]), Path(cache) if cache else None)
        verified.pop("root")
    for path in KEYS_OUTSIDE_IDENTITY:
        if path == "dataset.root" and not fetched:  # the folder is the data here
            continue
        *parents, leaf = path.split(".")
        node: Any = content
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(leaf, None)
    spread = (content.get("trainer") or {}).get("devices", 1) > 1
    content = dict(content) | ({"spread": True} if spread else {})  # earlier: the first device only
    content = {part: drop_later_keys(part, node) for part, node in content.items()}
    for path in FILE_KEYS:
        *parents, leaf = path.split(".")
        node = functools.reduce(lambda part, key: part.get(key) or {}, parents, content)
        if not isinstance(node.get(leaf), str):  # not given, or a list of classes
            continue
        file = Path(node[leaf])
        if file.is_file():
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


def _identify_images(data: dict[str, Any], outside: tuple[Path, ...]) -> None:
    """Replace the location of the user's images by a hash of their content, in place.

    A moved folder is the same data.

    Args:
        data: Config of the data set.
        outside: Folders below it that do not count.
    """
    cache = Path(data["cache_dir"]) if data.get("cache_dir") else None
    where = {key: Path(str(data[key])) for key in ("path", "root") if data.get(key) is not None}
    table = where.get("path")
    if table is not None and table.is_file():
        root = where.get("root", table.parent)
        try:
            content = read_table(table, root)
        except ValueError:
            return  # refused by the checks
        listed = (*content.train, *(content.test or ()))
        data["files"] = hash_table(table, root, cache, tuple(line.path for line in listed))
    else:
        folder = where.get("path", where.get("root"))
        if folder is None or not folder.is_dir():
            return
        data["files"] = hash_folder(folder, cache, outside)
    for key in where:
        data.pop(key)


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
