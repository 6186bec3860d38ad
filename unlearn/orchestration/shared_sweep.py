"""A sweep that several processes share: each waits for the cells that the others run."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unlearn.core.words import count_noun

if TYPE_CHECKING:
    from unlearn.orchestration.runner import JobRunner

POLL_SECONDS = 0.5


class SharedSweep:
    """Chooses the cells that this process runs, each at most once."""

    def __init__(self, task: "JobRunner") -> None:
        """Store the command, with its jobs."""
        self._task = task
        self._claimed: set[int] = set()
        self._recorded: set[int] = set()
        self._announced = 0

    def claim_cell(self, number: int) -> bool:
        """Return whether this process is to run a job now; true at most once per job."""
        if number in self._claimed or not self._task.needs_run(number):
            return False
        self._claimed.add(number)
        return True

    def wait_for_others(self) -> set[int]:
        """Wait until other processes have finished their cells, or left one without a row.

        Returns:
            Indices of the jobs that their process left unfinished; empty if all are recorded, were
            run here, or were submitted to a cluster.
        """
        self._release_locked()
        while not self._task.outcomes.submitted:
            running, left = self._list_open()
            if left or not running:
                return left
            if len(running) != self._announced:
                self._announced = len(running)
                self._task.print_line(
                    f"waiting for {count_noun(len(running), 'cell')} that other processes run; "
                    "Ctrl-C stops waiting"
                )
            time.sleep(POLL_SECONDS)
        return set()

    def _release_locked(self) -> None:
        """Forget the claims on jobs that another process was running when they started."""
        outcomes = self._task.outcomes
        locked = set(outcomes.locked)
        self._claimed -= {n for n, cell in enumerate(self._cells) if cell.run_id in locked}
        if self._cells:
            outcomes.locked = []

    def _list_open(self) -> tuple[set[int], set[int]]:
        """Return the jobs that other processes run, and those that nobody runs and have no row."""
        running, left = set(), set()
        queue = self._task.stack_queue
        for number, cell in enumerate(self._cells):
            if number in self._claimed or number in self._recorded:
                continue
            if queue and queue.is_claimed(cell.run_id):  # locked by this process for a stack
                left.add(number)
            elif self._task.is_forced(number) and cell.is_running():
                running.add(number)
            elif cell.is_recorded():
                self._recorded.add(number)
            elif cell.is_running():
                running.add(number)
            elif not cell.is_recorded():  # it may have ended since the first look
                left.add(number)
        return running, left

    @property
    def _cells(self) -> Sequence[Any]:
        """The cells of the sweep; none if the jobs are of another command or of a study."""
        progress = self._task.outcomes.progress
        return progress.cells if progress else ()
