"""Forget sets graded by their entanglement with the retain set."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn.data.forget_sets.base import ForgetSet, Requests
from unlearn.data.forget_sets.uniform import count_forget
from unlearn.data.task import Truth
from unlearn.scoring.score_groups import GROUPS, by_distance, entanglement_score, rank_entanglements


class Entangled(ForgetSet):
    """Samples by distance from the mean feature of the original model (arXiv 2406.01257)."""

    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    wrong_labels: ClassVar[bool] = False

    def __init__(
        self, *, group: str, size: float | None, num_groups: int, pick: Sequence[int] | None
    ) -> None:
        """Store the options.

        Args:
            group: "low", "mid", "high" or "mix".
            size: A share of the training set below 1, or a count; None: a whole group.
            num_groups: Number of groups of the training set by distance.
            pick: Which groups are low, mid and high; None: by their entanglement.

        Raises:
            ValueError: If an option is out of range.
        """
        if group not in (*GROUPS, "mix"):
            raise ValueError(f"forget_set.group must be low, mid, high or mix, got {group}")
        if pick is not None and (len(pick) != 3 or not all(0 <= p < num_groups for p in pick)):
            raise ValueError(f"forget_set.pick must be three of {num_groups} groups, got {pick}")
        self.group = group
        self.size = size
        self.num_groups = num_groups
        self.pick = pick
        self.notes: dict[str, Any] = {"kind": "entanglement", "group": group}

    def __call__(self, truth: Truth, *, rate: float, seed: int, embedding: Tensor) -> Requests:
        """Return one request; ``embedding`` (N, E) is the original model's."""
        total = len(embedding)
        size = total // self.num_groups if self.size is None else count_forget(self.size, total)
        groups = by_distance(embedding, self.num_groups, size)
        scores = [_compute_entanglement(embedding, g) for g in groups]
        own = rank_entanglements(scores)
        if self.pick is not None:
            own = {str(g): p for g, p in zip(GROUPS, self.pick, strict=True)}
        self.notes |= {"entanglements": scores, "picked": [own[g] for g in GROUPS]}
        if self.group != "mix":
            return (groups[own[self.group]],)
        each = count_forget(size, total, 3) // 3
        return (torch.cat([groups[own[g]][:each] for g in GROUPS]).sort().values,)


def _compute_entanglement(embedding: Tensor, forget: Tensor) -> float:
    retain = torch.ones(len(embedding), dtype=torch.bool)
    retain[forget] = False
    return entanglement_score(embedding, forget, retain.nonzero().flatten())
