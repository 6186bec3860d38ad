"""What becomes of the jobs of a command; other processes hand in what they have counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class JobCounts:
    """The jobs of a command and what became of them.

    Attributes:
        jobs: Overrides of each.
        progress: Of a sweep whose cells are known.
        started: Jobs that were begun.
        wrong: Jobs that a wrong input ended.
        broken: Jobs that broke.
        submitted: Jobs that were handed to a cluster and not waited for.
        quiet: Another process announces the jobs.
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
        """How many jobs failed."""
        return self.wrong + self.broken

    def exit_code(self) -> int:
        """Return the exit code: 1 for a broken job, 2 for a wrong input, 0."""
        return 1 if self.broken else 2 if self.wrong else 0

    def take_counts(self) -> dict[str, int]:
        """Return the counts and begin again at nothing."""
        counts = {"started": self.started, "wrong": self.wrong, "broken": self.broken}
        self.started = self.wrong = self.broken = 0
        return counts

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Count what another process has counted."""
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
        note = "; status=true names each with its error" if self.num_failed else ""
        return f"{self.started - self.num_failed} done{failed}, {skipped} skipped{note}"
