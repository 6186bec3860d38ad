"""Partitions of a forget set into parts to unlearn one after another (arXiv 2406.01257).

Shapes: n forget samples.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.scoring.score_groups import sort_ascending


class Partition(Protocol):
    """Splits the forget set by name, in order."""

    def __call__(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return positions in the forget set by the part's name; disjoint, together all."""
        ...


def cut_order(order: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Return contiguous parts, as equal in size as possible, sorted within each.

    Raises:
        ValueError: If a part would be empty.
    """
    if len(order) < len(names):
        raise ValueError(f"cannot cut {len(order)} forget samples into {len(names)} parts")
    parts = order.tensor_split(len(names))
    return {name: part.sort().values for name, part in zip(names, parts, strict=True)}


class ByScore:
    """The least memorized samples first."""

    def __init__(self, *, names: Sequence[str], record: str, tie_seed: int) -> None:
        """Keep the options.

        Args:
            names: Of the parts, from the least memorized to the most; one: no partition.
            record: Which of the request's records to sort by.
            tie_seed: Of the order that breaks ties.
        """
        self.names = tuple(names)
        self.record = record
        self.tie_seed = tie_seed

    def __call__(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return the parts.

        Raises:
            ValueError: If there is no such record.
        """
        if self.record not in request.records:
            raise ValueError(
                f"a partition by memorization needs a score: score=holdout_retraining; records "
                f"are {', '.join(request.records) or 'none'}"
            )
        values = request.records[self.record].cpu()[request.forget.index.cpu()]
        return cut_order(sort_ascending(values, self.tie_seed), self.names)


class AtRandom:
    """Parts drawn at random: the control for whether a sequence alone helps."""

    def __init__(self, *, names: Sequence[str], seed: int) -> None:
        """Keep names and seed."""
        self.names = tuple(names)
        self.seed = seed

    def __call__(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return the parts."""
        generator = torch.Generator().manual_seed(self.seed)
        return cut_order(torch.randperm(len(request.forget), generator=generator), self.names)
