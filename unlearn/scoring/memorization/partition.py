"""Partitions of a forget set into parts that are unlearned in order (arXiv 2406.01257).

Shapes: n forget samples.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.scoring.score_groups import sort_ascending


class Partition(Protocol):
    """Split the forget set into named parts."""

    def __call__(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return positions in the forget set by part; disjoint and complete."""
        ...


def cut_order(order: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Return contiguous parts of nearly equal size, each sorted.

    Raises:
        ValueError: If a part would be empty.
    """
    if len(order) < len(names):
        raise ValueError(f"cannot cut {len(order)} forget samples into {len(names)} parts")
    parts = order.tensor_split(len(names))
    return {name: part.sort().values for name, part in zip(names, parts, strict=True)}


class ByScore:
    """Parts by score, the least memorized samples first."""

    def __init__(self, *, names: Sequence[str], record: str, tie_seed: int) -> None:
        """Store the options.

        Args:
            names: Names of the parts, from least to most memorized; one name: no partition.
            record: Name of the request's record to sort by.
            tie_seed: Seed of the order of samples with equal scores.
        """
        self.names = tuple(names)
        self.record = record
        self.tie_seed = tie_seed

    def __call__(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return the parts.

        Raises:
            ValueError: If the record does not exist.
        """
        if self.record not in request.records:
            raise ValueError(
                f"a partition by memorization needs a score, such as score=holdout_retraining; "
                f"records are {', '.join(request.records) or 'none'}"
            )
        values = request.records[self.record].cpu()[request.forget.index.cpu()]
        return cut_order(sort_ascending(values, self.tie_seed), self.names)


class AtRandom:
    """Random parts, the control for the effect of unlearning in parts."""

    def __init__(self, *, names: Sequence[str], seed: int) -> None:
        """Store names and seed."""
        self.names = tuple(names)
        self.seed = seed

    def __call__(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return the parts."""
        generator = torch.Generator().manual_seed(self.seed)
        return cut_order(torch.randperm(len(request.forget), generator=generator), self.names)
