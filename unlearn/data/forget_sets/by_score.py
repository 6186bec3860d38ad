"""Forget sets graded by a memorization score.

Sources: arXiv 2406.01257, 2410.16516. ``needs`` lists the inputs besides the data.
Shapes: N samples, E embedding.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn.data.forget_sets.base import ForgetSet, Requests
from unlearn.data.forget_sets.from_file import FromFile as FromFile  # target of configs
from unlearn.data.forget_sets.uniform import count_forget
from unlearn.data.task import Truth
from unlearn.scoring.score_groups import (
    GROUPS,
    center_of,
    select_graded,
)


class Graded(ForgetSet):
    """Samples of low, medium or high score, or a mix of all three in equal parts."""

    needs: ClassVar[tuple[str, ...]] = ("score", "center")
    wrong_labels: ClassVar[bool] = False

    def __init__(
        self,
        *,
        group: str,
        size: float,
        center: str | float | None,
        tie_seed: int,
        num_requests: int,
        shared_requests: bool,
    ) -> None:
        """Store the options.

        Args:
            group: "low", "mid", "high" or "mix".
            size: Size of each request: fraction of the training set (below 1) or count.
            center: Center of mid: "median", "midrange", a number; None: the score's own.
            tie_seed: Seed of the order that breaks ties.
            num_requests: Number of successive requests, each drawn from the remaining samples.
            shared_requests: Score the original model once, for all methods; False: score the current
                model before each request (arXiv 2410.16516).

        Raises:
            ValueError: If the group is unknown.
        """
        if group not in (*GROUPS, "mix"):
            raise ValueError(f"forget_set.group must be low, mid, high or mix, got {group}")
        self.group = group
        self.size = size
        self.center = center
        self.tie_seed = tie_seed
        self.num_requests = num_requests
        self.shared_requests = shared_requests
        self.notes: dict[str, Any] = {"kind": "graded", "group": group}
        if not shared_requests:
            self.notes["kind"] = "graded anew"

    def __call__(
        self, truth: Truth, *, rate: float, seed: int, score: Tensor, center: str | float
    ) -> Requests:
        """Return all requests, or only the first if each later one uses new scores.

        Args:
            truth: Ground truth; only its length is used.
            rate: Unused.
            seed: Unused.
            score: Larger is more memorized, (N,).
            center: The score's own centre.

        Raises:
            ValueError: If nothing is left to retain.
        """
        count = count_forget(self.size, len(score), self._num_parts())
        if count * self.num_requests >= len(score):
            raise ValueError(
                f"forget_set.num_requests={self.num_requests} of {count} samples leave none of "
                f"{len(score)} to retain"
            )
        requests: list[Tensor] = []
        self.notes["displaced"] = 0
        for _ in range(self.num_requests if self.shared_requests else 1):
            gone = torch.cat(requests) if requests else torch.tensor([], dtype=torch.long)
            requests.append(self.choose_next(score, center, gone))
        self.notes["score_mean"] = score[requests[0]].mean().item()
        return tuple(requests)

    def _num_parts(self) -> int:
        return len(GROUPS) if self.group == "mix" else 1

    def choose_next(self, score: Tensor, center: str | float, gone: Tensor) -> Tensor:
        """Return one request from the remaining samples, sorted indices.

        Args:
            score: Larger is more memorized, (N,).
            center: The score's own centre.
            gone: Indices of earlier requests.
        """
        parts = self._num_parts()
        each = count_forget(self.size, len(score), parts) // parts
        sizes = dict.fromkeys(GROUPS if parts > 1 else (self.group,), each)
        pool = torch.arange(len(score))
        pool = pool[~torch.isin(pool, gone.cpu())]
        values = score[pool].cpu()
        middle = center_of(values, center if self.center is None else self.center)
        groups, lost = select_graded(values, sizes, middle, self.tie_seed)
        self.notes["displaced"] = lost + self.notes.get("displaced", 0)
        return pool[torch.cat(list(groups.values()))].sort().values
