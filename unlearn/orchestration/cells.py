"""The cells of a sweep: which runs a command line stands for, and what became of each."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unlearn.config.command_line import Arguments
from unlearn.config.composition import enable_composition, make_config_cache
from unlearn.config.identity import compute_run_id
from unlearn.config.resolved_cache import ConfigCache
from unlearn.core.job import original_identity, use_class_names
from unlearn.storage.run_errors import read_last_line

STATES = ("done", "collapsed", "failed", "running", "missing")
LOCK_FILE = ".lock"


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
    original_key: str
    checkpoints: Path
    content: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def get_state(self) -> str:
        """Return one of ``STATES``."""
        row = self.read_row()
        if row is not None:
            return "done" if row.get("status") == "ok" else str(row.get("status"))
        if is_locked(self.folder):
            return "running"
        return "failed" if (self.folder / "error.txt").exists() else "missing"

    def is_recorded(self) -> bool:
        """Say whether there is a row."""
        return (self.folder / "row-0.json").exists()

    def is_running(self) -> bool:
        """Say whether a process is at this run now."""
        return is_locked(self.folder)

    def read_row(self) -> dict[str, Any] | None:
        """Return the recorded row; None if there is none that can be read."""
        return read_first_row(self.folder)

    def read_error(self) -> str:
        """Return the last line of the traceback that a broken run left."""
        return read_last_line(self.folder / "error.txt")


def read_first_row(folder: Path) -> dict[str, Any] | None:
    """Return the row of a run's folder; None if there is none that can be read."""
    try:
        row = json.loads((folder / "row-0.json").read_text())
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


def run_lock(folder: Path) -> FileLock:
    """Return the lock of a run's folder: held while the run is made, freed if its process dies.

    Its patience of a moment is for those who only look whether it is taken.
    """
    return FileLock(folder / LOCK_FILE, timeout=0.2, poll_interval=0.02)


def is_locked(folder: Path) -> bool:
    """Say whether a process is making this run now."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        with run_lock(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True


def compute_original_key(content: dict[str, Any]) -> str:
    """Return what stands for the original model that a resolved config needs."""
    text = json.dumps(use_class_names(original_identity(content)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def expand_cells(
    name: str, jobs: Sequence[Sequence[str]], arguments: Arguments, bases: ConfigCache | None = None
) -> Iterator[Cell]:
    """Yield the cell of each job.

    Args:
        name: Of the primary config.
        jobs: Overrides of each.
        arguments: Of the command line.
        bases: What has been composed already.
    """
    bases = make_config_cache(name, arguments) if bases is None else bases
    with enable_composition(arguments.folders):
        for job in jobs:
            # Hydra's own values, as those of a launcher, make no other run; here they are read-only.
            yield _make_cell(tuple(job), bases.resolve_job(job))


def group_by_dataset(cells: Sequence[Cell]) -> list[Cell]:
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


def _make_cell(overrides: tuple[str, ...], content: dict[str, Any]) -> Cell:
    paths = content["paths"]
    who = compute_run_id(content)
    return Cell(
        overrides,
        who,
        Path(paths["results"]) / who,
        content["names"],
        compute_original_key(content),
        Path(paths["checkpoints"]),
        content,
    )


def list_trained_originals(checkpoints: Path) -> set[str]:
    """Return the keys of the original models in the cache."""
    keys = set()
    for path in checkpoints.glob("*/identity.json"):
        if (path.parent / "model.pt").exists():
            content = json.loads(path.read_text())
            if "forget" not in content:  # not a retrained reference
                keys.add(compute_original_key(content))
    return keys
