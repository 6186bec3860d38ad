"""Cells of a sweep that are unlearned as one stack when the first of them runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unlearn.core.job import Job
from unlearn.orchestration.cells import Cell, run_lock


class StackQueue:
    """Holds the results of stacked cells until each cell runs.

    The cells stay locked meanwhile: other processes see them as running.
    """

    def __init__(self) -> None:
        """Initialize an empty queue."""
        self._held: dict[str, tuple[FileLock, Any]] = {}
        self._tried: set[str] = set()

    def is_claimed(self, run_id: str) -> bool:
        """Return whether this process has locked a cell."""
        return run_id in self._held

    def take_result(self, run_id: str, folder: Path) -> tuple[FileLock, Any]:
        """Return the lock of a cell and its unlearning result; None if there is none."""
        return self._held.pop(run_id, (run_lock(folder), None))

    def claim_and_unlearn(
        self,
        cells: Sequence[Cell],
        number: int,
        due: Callable[[int], bool],
        job_of: Callable[[Cell], Job],
    ) -> None:
        """Unlearn a cell together with later cells of the same stack key, up to ``stack`` cells.

        Args:
            cells: Of the sweep.
            number: Index of the cell to run.
            due: Returns whether a cell still has to run.
            job_of: Returns a cell's job.
        """
        if cells[number].run_id in self._tried:
            return
        from unlearn.orchestration.stacking.stacked_cells import unlearn_stack

        group = [
            cell for cell in self._find_stackable(cells, number, due) if self._claim_cell(cell)
        ]
        self._tried.update(cell.run_id for cell in group)
        found: dict[str, Any] = {}
        try:
            found = unlearn_stack([job_of(cell) for cell in group]) if len(group) > 1 else {}
        finally:
            for cell in group:
                lock, _ = self._held.pop(cell.run_id)
                if cell.run_id in found:
                    self._held[cell.run_id] = (lock, found[cell.run_id])
                else:
                    lock.release()

    def _find_stackable(
        self, cells: Sequence[Cell], number: int, due: Callable[[int], bool]
    ) -> list[Cell]:
        from unlearn.orchestration.stacking.stacked_cells import size_difference, stack_key
        from unlearn.pipeline.stacked_training import stack_width

        first = cells[number].content
        key, most = stack_key(first), stack_width(dict(first))
        if key is None:
            return []
        others = sorted(
            (size_difference(first, cell.content), n)
            for n, cell in enumerate(cells)
            if n > number and cell.run_id not in self._tried and stack_key(cell.content) == key
        )
        found = [cells[number]]
        for _, n in others:
            if len(found) < most and due(n):
                found.append(cells[n])
        return found

    def _claim_cell(self, cell: Cell) -> bool:
        """Lock a cell, unless another process runs it."""
        lock = run_lock(cell.folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[cell.run_id] = (lock, None)
        return True
