"""Base class of trusted sets, and the seeded draw of their images.

Methods that need a trusted set get it as ``request.trusted``; all others do not.
Shapes: N training samples, n images of the trusted set.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.datasets.base import Dataset
from unlearn.data.task import Truth


@dataclass(frozen=True)
class TrustedDraw:
    """A drawn trusted set.

    Attributes:
        images: The set, with right labels and without triggers.
        bad: Indices of corrupted samples found by drawing, int64 (m,): they join the forget set.
        notes: Facts for the row, by column.
    """

    images: ImageSet
    bad: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    notes: dict[str, Any] = field(default_factory=dict)


class TrustedSource(ABC):
    """Base class of the sources of a trusted set.

    Attributes:
        source: Name of the source in rows.
    """

    source: ClassVar[str]

    def hold_out(self, dataset: Dataset) -> tuple[Dataset, ImageSet | None]:
        """Return the data set to corrupt and train on, and the images held out of it, if any."""
        return dataset, None

    @abstractmethod
    def __call__(
        self,
        train: ImageSet,
        truth: Truth,
        forget: Tensor,
        *,
        dataset: Dataset,
        held_out: ImageSet | None,
    ) -> TrustedDraw:
        """Return the trusted set.

        Args:
            train: The training set as received, (N).
            truth: Its ground truth.
            forget: Indices of all requests.
            dataset: The clean data set.
            held_out: What ``hold_out`` returned.

        Raises:
            ValueError: If there are too few images.
        """


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """Options of sources that draw images.

    Attributes:
        size: Number of images: a fraction of the training set below 1, else a count.
        balanced: Draw the same number from every class, by given label, as far as possible.
        seed: Seed of the draw.
    """

    size: float
    balanced: bool
    seed: int

    def __post_init__(self) -> None:
        """Check the size.

        Raises:
            ValueError: If it is neither a fraction nor a count.
        """
        if not (0 < self.size < 1 or (self.size >= 1 and self.size == int(self.size))):
            raise ValueError(
                f"trusted.size must be a fraction in (0, 1) or a count of at least 1, got {self.size}"
            )

    def draw_rows(self, pool: Tensor, label: Tensor) -> Tensor:
        """Return sorted entries of ``pool``, int64 (n,).

        Args:
            pool: Indices to draw from.
            label: Given labels of the training set, (N,).

        Raises:
            ValueError: If the pool has too few.
        """
        count = round(self.size * len(label)) if self.size < 1 else int(self.size)
        if not 1 <= count <= len(pool):
            raise ValueError(
                f"trusted.size={self.size:g} is {count} images, but 1..{len(pool)} of the "
                f"{len(label)} training images can be drawn"
            )
        generator = torch.Generator().manual_seed(self.seed + 15_485_863)
        order = pool[torch.randperm(len(pool), generator=generator)]
        if self.balanced:
            order = order[take_turns(label.cpu()[order])]
        return order[:count].sort().values


def take_turns(label: Tensor) -> Tensor:
    """Return an order in which the n-th sample of every class precedes any (n+1)-th, int64 (n,)."""
    turn = torch.empty(len(label), dtype=torch.long)
    for c in label.unique():
        own = (label == c).nonzero().flatten()
        turn[own] = torch.arange(len(own))
    return turn.argsort(stable=True)


def select_images(train: ImageSet, rows: Tensor, label: Tensor, dataset: Dataset) -> ImageSet:
    """Return training images ``rows`` (n,) with the labels of ``label`` (N,), without triggers."""
    place = rows.to(train.label.device)
    own = train.rows(place)
    return replace(own, label=label.to(train.label.device)[place], view=dataset.train.view)


def list_retained(size: int, forget: Tensor) -> Tensor:
    """Return the indices below ``size`` that are in no request."""
    keep = torch.ones(size, dtype=torch.bool)
    keep[forget.cpu()] = False
    return keep.nonzero().flatten()
