"""The cells of a sweep: the runs of a command line and the state of each."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unlearn.config.command_line import Arguments
from unlearn.config.composition import enable_composition, make_config_cache
from unlearn.config.identity import compute_run_id
from unlearn.config.resolved_cache import ConfigCache
from unlearn.core.job import identify_code, original_identity
from unlearn.storage.checkpoint_marks import CLEAN_ONLY_MARK
from unlearn.storage.row_files import read_row
from unlearn.storage.run_errors import read_last_line

log = logging.getLogger(__name__)

STATES = ("done", "collapsed", "failed", "running", "missing")
LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        overrides: Overrides of the command line.
        run_id: Hash of its resolved config.
        folder: Folder of the run.
        names: Display names of the choices.
        original_key: Cache key of its original model.
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
        """Return whether the row is recorded."""
        return self.read_row() is not None

    def is_running(self) -> bool:
        """Return whether a process is running this cell."""
        return is_locked(self.folder)

    def needs_clean_only(self) -> bool:
        """Return whether the cell needs a network that never saw a corrupted sample."""
        corruption = self.content.get("corruption") or {}
        none = str(corruption.get("_target_", "")).endswith(".Clean")
        return bool(self.content.get("clean_only")) and not none

    def read_row(self) -> dict[str, Any] | None:
        """Return the row of the first request; None if absent or broken."""
        return read_row(self.folder)

    def read_error(self) -> str:
        """Return the last line of a failed run's traceback."""
        return read_last_line(self.folder / "error.txt")


def run_lock(folder: Path) -> FileLock:
    """Return the lock of a run's folder: held during the run, released if its process dies.

    The short timeout allows for processes that only check whether it is held.
    """
    return FileLock(folder / LOCK_FILE, timeout=0.2, poll_interval=0.02)


def is_locked(folder: Path) -> bool:
    """Return whether a process is running this run."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        with run_lock(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return _is_locked_read_only(folder / LOCK_FILE)


def _is_locked_read_only(path: Path) -> bool:
    """Return whether a lock file that cannot be written is locked by a process."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return False
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
    return False


def compute_original_key(content: dict[str, Any]) -> str:
    """Return the cache key of the original model that a resolved config needs."""
    text = json.dumps(identify_code(original_identity(content)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def expand_cells(
    name: str, jobs: Sequence[Sequence[str]], arguments: Arguments, bases: ConfigCache | None = None
) -> Iterator[Cell]:
    """Yield the cell of each job.

    Args:
        name: Of the primary config.
        jobs: Overrides of each.
        arguments: Of the command line.
        bases: Configs composed so far.
    """
    bases = make_config_cache(name, arguments) if bases is None else bases
    with enable_composition(arguments.folders):
        for job in jobs:
            # Hydra's own values (launcher, ...) do not change a run; they are read-only here.
            yield _make_cell(tuple(job), bases.resolve_job(job))


def group_by_dataset(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells grouped by data set, otherwise in order.

    A process keeps only the data set loaded last. Cells are not grouped by original: processes
    that share a sweep would wait for one training instead of starting the next.
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
    """Return the keys of the original models in the cache; broken entries cause a warning."""
    return _list_cached_keys(checkpoints, lambda folder, who: "forget" not in who)


def list_trained_clean_only(checkpoints: Path) -> set[str]:
    """Return the keys of the originals whose network without corrupted samples is in the cache."""
    return _list_cached_keys(
        checkpoints, lambda folder, who: "forget" in who and (folder / CLEAN_ONLY_MARK).exists()
    )


def _list_cached_keys(
    checkpoints: Path, is_wanted: Callable[[Path, Mapping[str, Any]], bool]
) -> set[str]:
    """Return the originals' keys of cached models; called with a model's folder and identity."""
    keys = set()
    for path in checkpoints.glob("*/identity.json"):
        if (path.parent / "model.pt").exists():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                if is_wanted(path.parent, content):
                    keys.add(compute_original_key(content))
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                log.warning(
                    "%s is broken and not counted: %s: %s", path, type(error).__name__, error
                )
    return keys
