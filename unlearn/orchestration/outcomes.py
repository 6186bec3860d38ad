"""Outcomes of the jobs of a command, including jobs counted by other processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class JobCounts:
    """The jobs of a command and the counts of their outcomes.

    Attributes:
        jobs: Overrides of each.
        progress: Progress of a sweep whose cells are known.
        started: Number of started jobs.
        wrong: Number of jobs that ended with an input error.
        broken: Number of jobs that ended with an internal error.
        submitted: Number of jobs submitted to a cluster without waiting.
        suppress_announcements: Whether another process announces the jobs.
    """

    jobs: list[list[str]]
    progress: Any = None
    started: int = 0
    wrong: int = 0
    broken: int = 0
    submitted: int = 0
    suppress_announcements: bool = False

    @property
    def is_sweep(self) -> bool:
        """Whether this is a sweep."""
        return len(self.jobs) > 1

    @property
    def num_failed(self) -> int:
        """Number of failed jobs."""
        return self.wrong + self.broken

    def exit_code(self) -> int:
        """Return the exit code: 1 for an internal error, 2 for an input error, else 0."""
        return 1 if self.broken else 2 if self.wrong else 0

    def take_counts(self) -> dict[str, int]:
        """Return the counts and reset them."""
        counts = {"started": self.started, "wrong": self.wrong, "broken": self.broken}
        self.started = self.wrong = self.broken = 0
        return counts

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add the counts of another process."""
        self.started += counts["started"]
        self.wrong += counts["wrong"]
        self.broken += counts["broken"]

    def format_summary(self) -> str:
        """Return the last line of a sweep."""
        failed = f", {self.num_failed} failed"
        if self.submitted:
            failed += f", {self.submitted} submitted"
        if self.progress is None:
            return f"{self.started - self.num_failed} of {len(self.jobs)} jobs done{failed}"
        skipped = len(self.jobs) - self.started - self.submitted
        note = "; status=true lists them with their errors" if self.num_failed else ""
        return f"{self.started - self.num_failed} done{failed}, {skipped} skipped{note}"
