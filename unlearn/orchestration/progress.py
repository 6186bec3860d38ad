"""Progress of a sweep: cells by state, estimated time, plan and status."""

import logging
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearn.core.console import make_console
from unlearn.core.words import count_noun
from unlearn.orchestration.cells import (
    STATES,
    Cell,
    list_trained_clean_only,
    list_trained_originals,
)

log = logging.getLogger(__name__)


def group_by_state(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return the cells in each state."""
    out: dict[str, list[Cell]] = {state: [] for state in STATES}
    for cell in cells:
        out[cell.get_state()].append(cell)
    return out


def format_duration(seconds: float) -> str:
    """Return a readable duration: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def method_name(cell: Cell) -> str:
    """Return the display name of a cell's method, including the pre-training of its model."""
    variant = cell.names.get("pretraining", "standard")
    return cell.names["method"] + ("" if variant == "standard" else f"({variant})")


@dataclass
class TimeEstimate:
    """Estimated time of missing cells, from recorded rows.

    Attributes:
        cell_seconds: Seconds of the cells on one process; None: no row is recorded.
        training_seconds: Seconds of the original models that are not cached; None as before.
        unknown_methods: Methods without a row; the mean of the other methods is used.
    """

    cell_seconds: float | None
    training_seconds: float | None
    unknown_methods: list[str] = field(default_factory=list)


def estimate_time(
    missing: Sequence[Cell], recorded: Sequence[Cell], trainings: int
) -> TimeEstimate:
    """Estimate missing cells by the median time of recorded cells of the same method.

    Args:
        missing: Cells to run.
        recorded: Cells with a row.
        trainings: Number of original models to train.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    originals: list[float] = []
    for cell in recorded:
        row = cell.read_row() or {}
        if (value := _read_number(row, "wall_seconds")) is not None:
            seconds[method_name(cell)].append(value)
        if (value := _read_number(row, "original_seconds")) is not None:
            originals.append(value)
    if not seconds:
        return TimeEstimate(None, None)
    usual = {method: statistics.median(values) for method, values in seconds.items()}
    others = statistics.mean(usual.values())
    total = sum(usual.get(method_name(cell), others) for cell in missing)
    unknown = sorted({method_name(cell) for cell in missing} - set(usual))
    training = trainings * statistics.median(originals) if originals else None
    return TimeEstimate(total, training, unknown)


def _read_number(row: Mapping[str, Any], column: str) -> float | None:
    """Return a number of a row; None with a warning if it is something else."""
    value = row.get(column)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    log.warning("run %s: %s is not a number, left out: %r", row.get("run_id"), column, value)
    return None


def count_untrained(cells: Iterable[Cell]) -> int:
    """Return the number of required original models that are not cached."""
    wanted: dict[Path, set[str]] = defaultdict(set)
    for cell in cells:
        wanted[cell.checkpoints].add(cell.original_key)
    return sum(len(keys - list_trained_originals(folder)) for folder, keys in wanted.items())


def count_clean_only(cells: Iterable[Cell]) -> tuple[int, int]:
    """Return how many networks without corrupted samples are needed, and how many are not cached."""
    wanted: dict[Path, set[str]] = defaultdict(set)
    for cell in cells:
        if cell.needs_clean_only():
            wanted[cell.checkpoints].add(cell.original_key)
    there = {folder: list_trained_clean_only(folder) for folder in wanted}
    absent = sum(len(keys - there[folder]) for folder, keys in wanted.items())
    return sum(map(len, wanted.values())), absent


def describe_plan(cells: Sequence[Cell]) -> list[str]:
    """Return lines that describe the cost of a sweep, without running anything."""
    states = group_by_state(cells)
    recorded = states["done"] + states["collapsed"]
    missing = states["missing"] + states["failed"]
    models, needed = len({c.original_key for c in missing}), count_untrained(missing)
    clean = count_clean_only(missing)
    guess = estimate_time(missing, recorded, needed + clean[1])
    lines = [
        f"{count_noun(len(cells), 'cell')}: {len(recorded)} recorded, "
        f"{len(states['running'])} running, {len(missing)} to run",
        f"original models: {models} needed, {models - needed} cached, {needed} to train",
    ]
    if clean[0]:
        lines.append(
            f"networks without corrupted samples: {clean[0]} needed, {clean[0] - clean[1]} cached, "
            f"{clean[1]} to train"
        )
    methods = Counter(method_name(c) for c in missing)
    lines += [
        f"  {method}: {count_noun(count, 'cell')}" for method, count in sorted(methods.items())
    ]
    lines += describe_auto_cost(missing)
    if not missing:
        return lines
    if guess.cell_seconds is None:
        return [*lines, "time: unknown, no row of this sweep is recorded yet"]
    text = f"time: about {format_duration(guess.cell_seconds + (guess.training_seconds or 0))} on one process"
    if guess.unknown_methods:
        text += f"; no row of {', '.join(guess.unknown_methods)} yet, using the mean of the others"
    return [*lines, text]


def describe_auto_cost(cells: Iterable[Cell]) -> list[str]:
    """Return lines that say what the trials of ``method=auto`` cost at most, without repetition."""
    lines: dict[str, None] = {}
    for cell in cells:
        method = cell.content.get("method") or {}
        if not str(method.get("_target_", "")).endswith(".Auto"):
            continue
        budget, epochs = method["budget"], method["retraining_epochs"]
        names = ", ".join(method["candidates"])
        lines[
            f"method=auto: trials of {names} cost at most {budget:g} retrainings of {epochs} epochs for each "
            f"run, and unlearning with the whole list at most {budget / 2:g}; method.budget sets it"
        ] = None
    return list(lines)


def describe_status(cells: Sequence[Cell]) -> tuple[list[list[str]], list[str]]:
    """Return the state of a sweep: a row of counts per method, and a line per problem.

    Returns:
        Rows of method and one count per state, a total last; and lines that name each cell that
        failed or collapsed, with the reason and its folder.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    lines = []
    for cell in cells:
        state = cell.get_state()
        counts[method_name(cell)][state] += 1
        if state in ("failed", "collapsed"):
            why = cell.read_error() if state == "failed" else (cell.read_row() or {}).get("reason")
            asked = " ".join(o for o in cell.overrides if not o.startswith("status="))
            lines.append(f"{state}: {asked}: {why} ({cell.folder})")
    total = sum(counts.values(), Counter[str]())
    rows = [[m, *(str(counts[m][s]) for s in STATES)] for m in sorted(counts)]
    return [*rows, ["all", *(str(total[s]) for s in STATES)]], lines


@dataclass
class Progress:
    """Progress of a sweep, seen from one of its processes."""

    cells: Sequence[Cell]
    started: float = field(default_factory=time.monotonic)
    recorded: int = 0
    _done: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Count the recorded cells."""
        self.recorded = sum(self._list_recorded())

    def _list_recorded(self) -> list[bool]:
        """Return which cells are recorded; a row that was read once is not read again."""
        self._done |= {
            c.run_id for c in self.cells if c.run_id not in self._done and c.is_recorded()
        }
        return [cell.run_id in self._done for cell in self.cells]

    def format_line(self, failed: int) -> str:
        """Return done, running, failed and time left, including other processes."""
        there = self._list_recorded()
        done = sum(there)
        running = sum(c.is_running() for c, t in zip(self.cells, there, strict=True) if not t)
        left = len(self.cells) - done - failed
        new = done - self.recorded + failed
        text = f"{done} of {len(self.cells)} done"
        if running:
            text += f", {running} running"
        if failed:
            text += f", {failed} failed"
        if new and left > 0:
            pace = (time.monotonic() - self.started) / new
            text += f", about {format_duration(left * pace)} left"
        return text


def render_status(cells: Sequence[Cell]) -> Any:
    """Return the status as a renderable table."""
    from rich.table import Table

    table = Table(title="sweep", title_justify="left")
    table.add_column("method")
    for state in STATES:
        table.add_column(state, justify="right")
    rows, _ = describe_status(cells)
    for row in rows[:-1]:
        table.add_row(*row)
    table.add_section()
    table.add_row(*rows[-1])
    return table


def print_status(cells: Sequence[Cell], *, watching: bool) -> None:
    """Print the state of a sweep, or keep showing it until all cells are done."""
    if watching:
        watch_status(cells)
    else:
        make_console().print(render_status(cells))
    for line in describe_status(cells)[1]:
        print(line)


def watch_status(cells: Sequence[Cell], seconds: float = 2.0) -> None:
    """Show the status until no cell is running or missing, or until interrupted."""
    from rich.live import Live

    with Live(render_status(cells), console=make_console(), auto_refresh=False) as live:
        while any(cell.get_state() in ("running", "missing") for cell in cells):
            time.sleep(seconds)
            live.update(render_status(cells), refresh=True)
