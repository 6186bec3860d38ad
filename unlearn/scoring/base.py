"""Base classes of scores and recorders, and their inputs.

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
    """A training set and the models trained on it; no ground truth.

    Attributes:
        data: The training set as received, index 0..N-1.
        model: Returns a copy of the original model, in eval mode, on its device.
        records: Per-sample values recorded while the original was trained, (N,) each.
        validation: Held-out images not used in training; None if there are none.
        test: Test images.
        subset_models: Called with pairs of sorted positions and a seed; yields for each pair a
            model trained with the original's recipe on only these samples, in eval mode.
        query: One misclassified test image, labelled as the original model classifies it, for
            detectors that declare ``needs_query``; else None.
        trusted: Images known to be right, for detectors that declare ``uses_trusted``; None if
            there are none.
    """

    data: ImageSet
    model: Callable[[], nn.Module]
    records: Mapping[str, Tensor]
    validation: ImageSet | None
    test: ImageSet
    subset_models: Callable[[Sequence[tuple[Tensor, int]]], Iterable[nn.Module]]
    query: ImageSet | None = None
    trusted: ImageSet | None = None


class Recorder(L.Callback, ABC):
    """Callback of pre-training that records one or more values per sample.

    Attributes:
        name: Name of the recorded values.
        joins: Whether in distributed training each process may record its own part.
        seconds: Time spent recording.
    """

    name: ClassVar[str]
    joins: ClassVar[bool] = False

    def __init__(self) -> None:
        """Initialise ``seconds`` to 0."""
        self.seconds = 0.0

    @abstractmethod
    def start_recording(self, data: ImageSet, epochs: int) -> None:
        """Allocate memory for ``epochs`` epochs on ``data``."""

    @abstractmethod
    def get_records(self) -> dict[str, Tensor]:
        """Return the values by name, (N,) each, on the CPU."""

    def get_options(self) -> dict[str, Any]:
        """Return the options that are part of the original model's cache key."""
        return {"name": self.name}


def over_ranks(value: Tensor) -> Tensor:
    """Return the sum over all ranks; the value itself if training is not distributed."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    device = "cuda" if distributed.get_backend() == "nccl" else value.device
    total = value.to(device, copy=True)
    distributed.all_reduce(total)
    return total


class MeanRecorder(Recorder):
    """Record the mean per sample of one or more values over all additions.

    Attributes:
        sums: (N,) or (values, N), float64.
        counts: Number of additions per sample, (N,).
    """

    joins: ClassVar[bool] = True

    def start_recording(self, data: ImageSet, epochs: int) -> None:
        """Allocate the sums; they are moved to the device of the first batch."""
        # Rows are indices of the full training set, also for a subset.
        size = int(data.index.max()) + 1
        self.sums = torch.zeros(*self.value_shape(), size, dtype=torch.float64)
        self.counts = torch.zeros(size, dtype=torch.float64)

    def value_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample's value; () for a scalar."""
        return ()

    def add_values(self, values: Tensor, index: Tensor) -> None:
        """Add the values (..., B) of the rows ``index`` (B,)."""
        if self.sums.device != values.device:
            self.sums, self.counts = self.sums.to(values.device), self.counts.to(values.device)
        index, values = index.to(values.device), values.double()
        self.sums.index_add_(-1, index, values)
        self.counts.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))

    def compute_means(self) -> Tensor:
        """Return the means, float32 (..., N) on the CPU; 0 for samples without values."""
        return (self.sums / self.counts.clamp_min(1)).float().cpu()

    def state_dict(self) -> dict[str, Any]:
        """Return the state summed over all ranks; every rank must call this."""
        sums, counts = over_ranks(self.sums), over_ranks(self.counts)
        return {"sums": sums, "counts": counts, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state; of several ranks, only the first keeps it."""
        own = not distributed.is_initialized() or distributed.get_rank() == 0
        self.sums, self.counts = (state_dict[k] * own for k in ("sums", "counts"))
        self.seconds = state_dict["seconds"]


class SampleScorer(ABC):
    """Base class of scores and detectors, callables on ``ScoringInputs``.

    Attributes:
        notes: Facts of the computation, JSON-serialisable.
    """

    def __init__(self) -> None:
        """Initialise empty notes."""
        self.notes: dict[str, Any] = {}

    def make_recorder(self) -> Recorder | None:
        """Return the recorder needed during the original model's training, or None."""
        return None

    @abstractmethod
    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the result, on the CPU."""


class Score(SampleScorer):
    """Base class of memorization scores; larger values mean more memorized.

    Attributes:
        center: Score of samples of medium memorization: a number, or the "median".
        post_hoc: Whether the score needs no recorder during training.
    """

    center: ClassVar[str | float] = "median"
    post_hoc: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the score of each sample, float32 (N,), on the CPU."""
