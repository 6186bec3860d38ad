"""Cells of a sweep that are unlearned at once when the first of them is due."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unlearn.core.job import Job
from unlearn.orchestration.cells import Cell, run_lock


class StackQueue:
    """Holds the cells that were made beside others until their turns come.

    They are claimed all the while: other processes see them as running.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._held: dict[str, tuple[FileLock, Any]] = {}
        self._tried: set[str] = set()

    def is_claimed(self, run_id: str) -> bool:
        """Say whether a cell is claimed by this process already."""
        return run_id in self._held

    def take_result(self, run_id: str, folder: Path) -> tuple[FileLock, Any]:
        """Return the lock of a cell whose turn has come, and what its unlearning left behind, or None."""
        return self._held.pop(run_id, (run_lock(folder), None))

    def claim_and_unlearn(
        self,
        cells: Sequence[Cell],
        number: int,
        due: Callable[[int], bool],
        job_of: Callable[[Cell], Job],
    ) -> None:
        """Unlearn a cell and others to come that may be stacked with it, as many as ``stack`` wants.

        Args:
            cells: Of the sweep.
            number: Of the one whose turn it is.
            due: Whether a cell still has to run.
            job_of: Makes a cell's job.
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
        """Claim a cell, unless another process is at it."""
        lock = run_lock(cell.folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[cell.run_id] = (lock, None)
        return True
