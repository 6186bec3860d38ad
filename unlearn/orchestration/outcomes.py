"""Outcomes of the jobs of a command, including jobs counted by other processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unlearn.core.words import count_noun

COUNTS = ("started", "wrong", "broken", "locked")


@dataclass
class JobCounts:
    """The jobs of a command and the counts of their outcomes.

    Attributes:
        jobs: Overrides of each.
        progress: Progress of a sweep whose cells are known.
        started: Number of started jobs.
        wrong: Number of jobs that ended with an input error.
        broken: Number of jobs that ended with an internal error.
        locked: Run ids of the jobs that did not run because another process runs them.
        submitted: Number of jobs submitted to a cluster without waiting.
        suppress_announcements: Whether another process announces the jobs.
        run_ids: Runs that an evaluation is restricted to; None: all rows.
    """

    jobs: list[list[str]]
    progress: Any = None
    started: int = 0
    wrong: int = 0
    broken: int = 0
    locked: list[str] = field(default_factory=list)
    submitted: int = 0
    suppress_announcements: bool = False
    run_ids: list[str] | None = None

    @property
    def is_sweep(self) -> bool:
        """Whether this is a sweep."""
        return len(self.jobs) > 1

    @property
    def num_failed(self) -> int:
        """Number of failed jobs."""
        return self.wrong + self.broken

    def exit_code(self) -> int:
        """Return the exit code.

        1: an internal error; 2: an input error; 3: not finished, another process runs it; else 0.
        """
        return 1 if self.broken else 2 if self.wrong else 3 if self.locked else 0

    def take_counts(self) -> dict[str, Any]:
        """Return the counts and the locked runs, and reset them."""
        counts = {name: getattr(self, name) for name in COUNTS}
        self.started = self.wrong = self.broken = 0
        self.locked = []
        return counts

    def add_counts(self, counts: Mapping[str, Any]) -> None:
        """Add the counts of another process; absent ones are zero."""
        for name, value in counts.items():
            setattr(self, name, getattr(self, name) + value)

    def format_summary(self) -> str:
        """Return the last line of a sweep."""
        failed = f", {self.num_failed} failed"
        if self.submitted:
            failed += f", {self.submitted} submitted"
        if self.progress is None:
            return f"{self.started - self.num_failed} of {count_noun(len(self.jobs), 'job')} done{failed}"
        skipped = len(self.jobs) - self.started - self.submitted
        note = "; status=true lists them with their errors" if self.num_failed else ""
        return f"{self.started - self.num_failed} done{failed}, {skipped} skipped{note}"
