"""What a score of memorization is, and what it may look at.

Shapes: N training samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import lightning.pytorch as L
from torch import Tensor, nn

from unlearn.core import ImageSet


@dataclass(frozen=True)
class Subject:
    """A training set and the models that learned from it; no truth.

    Attributes:
        data: The training set as received, index 0..N-1.
        model: Returns a copy of the original model, in eval mode, on its device.
        records: Per-sample values noted while the original was trained, (N,) each.
        validation: Held-out images that nothing was trained on; None if there are none.
        test: Test images.
        subset_model: Called with sorted positions and a seed; returns a model of the original's
            recipe trained on these samples alone, in eval mode.
    """

    data: ImageSet
    model: Callable[[], nn.Module]
    records: Mapping[str, Tensor]
    validation: ImageSet | None
    test: ImageSet
    subset_model: Callable[[Tensor, int], nn.Module]


class Recorder(L.Callback, ABC):
    """A callback of pre-training that notes one or more values per sample.

    Attributes:
        name: What it notes.
        seconds: Time spent here.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        """Start the clock at 0."""
        self.seconds = 0.0

    @abstractmethod
    def begin(self, data: ImageSet, epochs: int) -> None:
        """Make room for a training of so many epochs on ``data``."""

    @abstractmethod
    def records(self) -> dict[str, Tensor]:
        """Return the values by name, (N,) each, on the CPU."""

    def options(self) -> dict[str, Any]:
        """Return what the values depend on: part of the original model's identity in the cache."""
        return {"name": self.name}


class Score(ABC):
    """Gives every training sample a number; larger: more memorized.

    Attributes:
        center: Where samples of medium memorization are: a number, or the "median".
        notes: Facts of the computation, JSON values.
    """

    center: ClassVar[str | float] = "median"

    def __init__(self) -> None:
        """Start without notes."""
        self.notes: dict[str, Any] = {}

    def recorder(self) -> Recorder | None:
        """Return what must watch the original model's training; None if nothing."""
        return None

    @abstractmethod
    def __call__(self, subject: Subject) -> Tensor:
        """Return the score of each sample, float32 (N,), on the CPU."""
