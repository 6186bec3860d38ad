"""The cells of a sweep: which runs a command line stands for, and what became of each."""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from unlearn.compose import Arguments, composed, composing, is_group
from unlearn.config import identity, plain

STATES = ("done", "collapsed", "failed", "running", "missing")
LOCK = ".lock"
ORIGINAL = ("dataset", "corruption", "corrupted", "model", "pretraining")
PLACES = ("root", "cache_dir")  # of a data set: where, not what


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        overrides: What the command line says of it.
        run_id: Hash of its resolved config.
        folder: Its own.
        names: What the choices are called.
        original: Stands for everything that its original model's weights depend on.
        checkpoints: Where original models are kept.
    """

    overrides: tuple[str, ...]
    run_id: str
    folder: Path
    names: dict[str, str]
    original: str
    checkpoints: Path

    def state(self) -> str:
        """Return one of ``STATES``."""
        row = self.row()
        if row is not None:
            return "done" if row.get("status") == "ok" else str(row.get("status"))
        if taken(self.folder):
            return "running"
        return "failed" if (self.folder / "error.txt").exists() else "missing"

    def recorded(self) -> bool:
        """Say whether there is a row."""
        return (self.folder / "row-0.json").exists()

    def busy(self) -> bool:
        """Say whether a process is at this run now."""
        return taken(self.folder)

    def row(self) -> dict[str, Any] | None:
        """Return the recorded row; None if there is none that can be read."""
        try:
            row = json.loads((self.folder / "row-0.json").read_text())
        except (OSError, ValueError):
            return None
        return row if isinstance(row, dict) else None

    def error(self) -> str:
        """Return the last line of the traceback that a broken run left."""
        text = (self.folder / "error.txt").read_text(errors="replace").strip()
        return text.splitlines()[-1] if text else "no traceback"


def claim(folder: Path) -> FileLock:
    """Return the lock of a run's folder: held while the run is made, freed if its process dies."""
    return FileLock(folder / LOCK)


def taken(folder: Path) -> bool:
    """Say whether a process is making this run now."""
    if not (folder / LOCK).exists():
        return False
    try:
        with claim(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True


def original_key(content: dict[str, Any]) -> str:
    """Return what stands for the original model that a resolved config needs."""
    parts = {key: content[key] for key in ORIGINAL}
    parts["dataset"] = {k: v for k, v in content["dataset"].items() if k not in PLACES}
    parts["seeds"] = {k: content["seeds"][k] for k in ("data", "train", "mask")}
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def expand(name: str, jobs: Sequence[Sequence[str]], arguments: Arguments) -> Iterator[Cell]:
    """Yield the cell of each job.

    Configs are composed once per choice of groups; plain values are set on a copy, as hydra would.

    Args:
        name: Of the primary config.
        jobs: Overrides of each.
        arguments: Of the command line.
    """
    parser = OverridesParser.create()
    bases: dict[tuple[str, ...], DictConfig] = {}
    with composing(arguments.folders):
        for job in jobs:
            parsed = parser.parse_overrides(list(job))
            groups = tuple(o.input_line or "" for o in parsed if _shapes(o))
            if groups not in bases:
                bases[groups] = composed(name, groups, arguments.folders)
            config = copy.deepcopy(bases[groups])
            values = [o for o in parsed if not _shapes(o) and not o.is_hydra_override()]
            ConfigLoaderImpl._apply_overrides_to_config(values, config)
            HydraConfig.instance().set_config(config)
            yield _cell(tuple(job), plain(config))


def _shapes(override: Override) -> bool:
    """Say whether an override takes part in the defaults list."""
    key = override.key_or_group
    return override.package is not None or "/" in key or is_group(override)


def _cell(overrides: tuple[str, ...], content: dict[str, Any]) -> Cell:
    paths = content["paths"]
    who = identity(content)
    return Cell(
        overrides,
        who,
        Path(paths["results"]) / who,
        content["names"],
        original_key(content),
        Path(paths["checkpoints"]),
    )


def trained(checkpoints: Path) -> set[str]:
    """Return the keys of the original models in the cache."""
    keys = set()
    for path in checkpoints.glob("*/identity.json"):
        if (path.parent / "model.pt").exists():
            content = json.loads(path.read_text())
            if "forget" not in content:  # not a retrained reference
                keys.add(original_key(content))
    return keys
