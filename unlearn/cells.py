"""The cells of a sweep: which runs a command line stands for, and what became of each."""

import copy
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from unlearn.compose import Arguments, composed, composing, is_group
from unlearn.config import identity, plain
from unlearn.job import original_identity
from unlearn.problems import last_line

STATES = ("done", "collapsed", "failed", "running", "missing")
LOCK = ".lock"


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
        content: Its resolved config.
    """

    overrides: tuple[str, ...]
    run_id: str
    folder: Path
    names: dict[str, str]
    original: str
    checkpoints: Path
    content: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

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
        return row_of(self.folder)

    def error(self) -> str:
        """Return the last line of the traceback that a broken run left."""
        return last_line(self.folder / "error.txt")


def row_of(folder: Path) -> dict[str, Any] | None:
    """Return the row of a run's folder; None if there is none that can be read."""
    try:
        row = json.loads((folder / "row-0.json").read_text())
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


def claim(folder: Path) -> FileLock:
    """Return the lock of a run's folder: held while the run is made, freed if its process dies.

    Its patience of a moment is for those who only look whether it is taken.
    """
    return FileLock(folder / LOCK, timeout=0.2, poll_interval=0.02)


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
    text = json.dumps(original_identity(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def expand(name: str, jobs: Sequence[Sequence[str]], arguments: Arguments) -> Iterator[Cell]:
    """Yield the cell of each job.

    Hydra takes a tenth of a second for a config. Here it composes one per choice of groups; a value
    that nothing refers to is set in the resolved config, others on a copy of the composed one.

    Args:
        name: Of the primary config.
        jobs: Overrides of each.
        arguments: Of the command line.
    """
    parse = functools.cache(OverridesParser.create().parse_override)
    bases: dict[tuple[str, ...], _Base] = {}
    converted: dict[str, Any] = {}
    with composing(arguments.folders):
        for job in jobs:
            parsed = [parse(override) for override in job]
            groups = tuple(o.input_line or "" for o in parsed if _shapes(o))
            if groups not in bases:
                config = composed(name, groups, arguments.folders)
                bases[groups] = _Base(config, converted)
            # Hydra's own values, as those of a launcher, make no other run; here they are read-only.
            values = [o for o in parsed if not (_shapes(o) or o.is_hydra_override())]
            yield _cell(tuple(job), bases[groups].resolved(values))


def packed(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with those of one data set side by side, else in their order.

    A process keeps the data that it has loaded last. Originals are not put side by side: processes
    that share a sweep would wait for the first one's training rather than train the next.
    """
    first: dict[str, int] = {}
    keys = []
    for cell in cells:
        data = [cell.content.get("dataset"), cell.content.get("validation")]
        keys.append(first.setdefault(json.dumps(data, sort_keys=True), len(first)))
    order = sorted(range(len(cells)), key=keys.__getitem__)
    return [cells[number] for number in order]


class _Base:
    """A composed config that values are set on."""

    def __init__(self, config: DictConfig, converted: dict[str, Any]) -> None:
        self.config = config
        self.converted = converted  # top-level values as the schema wants them: the same for all
        own = {str(k): v for k, v in OmegaConf.to_container(config).items() if k != "hydra"}  # type: ignore[union-attr]
        self.references = " ".join(re.findall(r"\$\{[^}]*\}", json.dumps(own)))
        self.known: dict[tuple[str, ...], dict[str, Any]] = {}

    def resolved(self, values: Sequence[Override]) -> dict[str, Any]:
        """Return the resolved config with the values set."""
        free = [o for o in values if self._free(o)]
        content = self._resolved([o for o in values if o not in free])
        for override in free:
            path = override.key_or_group.split(".")
            content = _with(content, path, self._converted(override, path))
        return content

    def _converted(self, override: Override, path: Sequence[str]) -> Any:
        line = override.input_line or ""
        if len(path) == 1 and line in self.converted:
            return self.converted[line]
        value = _at(self._resolved([override]), path)
        if len(path) == 1:
            self.converted[line] = value
        return value

    def _free(self, override: Override) -> bool:
        """Say whether a plain value is set that no reference can lead to."""
        plainly = not (override.is_add() or override.is_force_add() or override.is_delete())
        leaf = override.key_or_group.rpartition(".")[2]
        scalar = isinstance(override.value(), str | int | float | bool)
        return plainly and scalar and leaf not in self.references

    def _resolved(self, values: Sequence[Override]) -> dict[str, Any]:
        lines = tuple(o.input_line or "" for o in values)
        if lines not in self.known:
            config = copy.deepcopy(self.config)
            ConfigLoaderImpl._apply_overrides_to_config(list(values), config)
            HydraConfig.instance().set_config(config)
            self.known[lines] = plain(config)
        return self.known[lines]


def _at(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _with(tree: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of a nested mapping with one leaf replaced; the rest is shared."""
    key, *rest = path
    return {**tree, key: _with(tree[key], rest, value) if rest else value}


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
        content,
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
