"""Engine of stacks: runs pause before each step; runs whose next steps are of one kind step together.

Pre-training and unlearning subclass it with their own step.
"""

import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor
from torch.func import vmap


class SteppedRun(Protocol):
    """State of one model's training, paused before a step."""

    pending: Any
    """Batch of the next step; None at the end."""

    @property
    def kind(self) -> Hashable:
        """Key of the next step; steps with equal keys can be taken together."""

    def next_step(self) -> None:
        """Fetch the batch of the next step."""


Run = TypeVar("Run", bound=SteppedRun)


class StackEngine(ABC, Generic[Run]):
    """Step runs to their ends.

    Attributes:
        runs: The runs that have not ended.
        cast: Returns the autocast context of a step.
    """

    def __init__(
        self, runs: Sequence[Run], cast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        """Store the runs and the autocast context."""
        self.runs, self.cast = list(runs), cast

    def run_all(self) -> None:
        """Step until every run has ended."""
        for _ in self:
            pass

    def __iter__(self) -> Iterator[Run]:
        """Yield each run when it has ended.

        Smaller groups, such as before a last batch of a different size, step first, so that they
        can join the leading group.
        """
        while True:
            ended = [run for run in self.runs if run.pending is None]
            if ended:
                self._remove_runs(ended)
                yield from ended
            if not self.runs:
                return
            for group in self._group_runs()[1:]:
                self._step_group(group)
            if groups := self._group_runs():
                self._step_group(groups[0])

    def _group_runs(self) -> list[list[Run]]:
        """Return the runs grouped by the kind of their next step, the leading group first."""
        kinds: dict[Hashable, list[Run]] = defaultdict(list)
        for run in self.runs:
            if run.pending is not None:
                kinds[run.kind].append(run)
        return sorted(kinds.values(), key=self._rank_group, reverse=True)

    def _rank_group(self, group: Sequence[Run]) -> int:
        """Return the rank of a group; the one with the highest leads."""
        return len(group)

    def _remove_runs(self, ended: Sequence[Run]) -> None:
        """Remove runs that have ended."""
        self.runs = [run for run in self.runs if run not in ended]

    @abstractmethod
    def _step_group(self, group: Sequence[Run]) -> None:
        """Take the next step of each run of a group and fetch its next batch."""


def map_losses(loss: Callable[..., Tensor], *stacked: Any) -> Tensor:
    """Return the losses of M models, (M,): a loss mapped over tensors with a leading dimension M."""
    with warnings.catch_warnings():  # an operation without a batched form is looped over
        warnings.filterwarnings("ignore", message="There is a performance drop")
        return vmap(loss)(*stacked)
