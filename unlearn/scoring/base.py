"""What a score of memorization is, and what it may look at.

Shapes: N training samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, distributed, nn

from unlearn.core.types import ImageSet


@dataclass(frozen=True)
class ScoringInputs:
    """A training set and the models that learned from it; no truth.

    Attributes:
        data: The training set as received, index 0..N-1.
        model: Returns a copy of the original model, in eval mode, on its device.
        records: Per-sample values noted while the original was trained, (N,) each.
        validation: Held-out images that nothing was trained on; None if there are none.
        test: Test images.
        subset_models: Called with pairs of sorted positions and a seed; yields for each a model of
            the original's recipe trained on these samples alone, in eval mode.
    """

    data: ImageSet
    model: Callable[[], nn.Module]
    records: Mapping[str, Tensor]
    validation: ImageSet | None
    test: ImageSet
    subset_models: Callable[[Sequence[tuple[Tensor, int]]], Iterable[nn.Module]]


class Recorder(L.Callback, ABC):
    """A callback of pre-training that notes one or more values per sample.

    Attributes:
        name: What it notes.
        joins: Whether several processes that train together may each note their own part.
        seconds: Time spent here.
    """

    name: ClassVar[str]
    joins: ClassVar[bool] = False

    def __init__(self) -> None:
        """Start the clock at 0."""
        self.seconds = 0.0

    @abstractmethod
    def start_recording(self, data: ImageSet, epochs: int) -> None:
        """Make room for a training of so many epochs on ``data``."""

    @abstractmethod
    def get_records(self) -> dict[str, Tensor]:
        """Return the values by name, (N,) each, on the CPU."""

    def get_options(self) -> dict[str, Any]:
        """Return what the values depend on: part of the original model's identity in the cache."""
        return {"name": self.name}


def over_ranks(value: Tensor) -> Tensor:
    """Return the sum over the processes that train together; the value itself if there is one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    device = "cuda" if distributed.get_backend() == "nccl" else value.device
    total = value.to(device, copy=True)
    distributed.all_reduce(total)
    return total


class MeanRecorder(Recorder):
    """Notes means per sample: of one value, or of several, over all that it was shown.

    Attributes:
        sums: (N,) or (values, N), float64.
        counts: How often each sample was shown, (N,).
    """

    joins: ClassVar[bool] = True

    def start_recording(self, data: ImageSet, epochs: int) -> None:
        """Make room; the sums follow the first batch to its device."""
        # Rows are named by index; a part of a training set keeps the whole one's numbers.
        size = int(data.index.max()) + 1
        self.sums = torch.zeros(*self.value_shape(), size, dtype=torch.float64)
        self.counts = torch.zeros(size, dtype=torch.float64)

    def value_shape(self) -> tuple[int, ...]:
        """Return the shape of what is noted of one sample; () for a number."""
        return ()

    def add_values(self, values: Tensor, index: Tensor) -> None:
        """Add the values (..., B) of the rows ``index`` (B,)."""
        if self.sums.device != values.device:
            self.sums, self.counts = self.sums.to(values.device), self.counts.to(values.device)
        index, values = index.to(values.device), values.double()
        self.sums.index_add_(-1, index, values)
        self.counts.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))

    def compute_means(self) -> Tensor:
        """Return the means, float32 (..., N) on the CPU; 0 for what was never shown."""
        return (self.sums / self.counts.clamp_min(1)).float().cpu()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training goes on from: of all ranks, all of which must ask."""
        sums, counts = over_ranks(self.sums), over_ranks(self.counts)
        return {"sums": sums, "counts": counts, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; of several ranks, the first has it all."""
        own = not distributed.is_initialized() or distributed.get_rank() == 0
        self.sums, self.counts = (state_dict[k] * own for k in ("sums", "counts"))
        self.seconds = state_dict["seconds"]


class SampleScorer(ABC):
    """Says something of every training sample, by a model that learned them.

    Attributes:
        notes: Facts of the computation, JSON values.
    """

    def __init__(self) -> None:
        """Start without notes."""
        self.notes: dict[str, Any] = {}

    def make_recorder(self) -> Recorder | None:
        """Return what must watch the original model's training; None if nothing."""
        return None

    @abstractmethod
    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return what is said, on the CPU."""


class Score(SampleScorer):
    """Gives every training sample a number; larger: more memorized.

    Attributes:
        center: Where samples of medium memorization are: a number, or the "median".
        post_hoc: Whether any model has such a score, however it was trained.
    """

    center: ClassVar[str | float] = "median"
    post_hoc: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the score of each sample, float32 (N,), on the CPU."""
