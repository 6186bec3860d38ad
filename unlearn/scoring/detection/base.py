"""Base class of detectors, which use the data as received and models trained on them.

Shapes: N training samples, n flagged samples.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from unlearn.scoring.base import SampleScorer, ScoringInputs


class Detector(SampleScorer):
    """Flag samples as corrupted; they become the forget set, including false positives.

    The notes become columns of the run's row.

    Attributes:
        wrong_labels: True: samples are flagged because their labels seem wrong.
        needs_query: Whether it starts from one misclassified test image.
        uses_trusted: Whether it uses a trusted set if there is one.
        image: Which test image that is: its row or a file; None: drawn.
        seed: Seed of that draw.
    """

    wrong_labels: ClassVar[bool] = True
    needs_query: bool = False
    uses_trusted: bool = False
    image: str | int | None = None
    seed: int = 0

    @abstractmethod
    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the sorted indices of the flagged samples, int64 (n,), on the CPU."""


def check_cut(budget: float | None, threshold: float | None) -> None:
    """Check that exactly one of budget and threshold is given.

    Raises:
        ValueError: If none or both are given, or the budget is not in (0, 1).
    """
    if (budget is None) == (threshold is None):
        raise ValueError(
            "forget_set.budget and forget_set.threshold: give one and set the other to null, got "
            f"{budget} and {threshold}"
        )
    if budget is not None and not 0 < budget < 1:
        raise ValueError(f"forget_set.budget must be in (0, 1), got {budget}")


def most_suspicious(suspicion: Tensor, budget: float | None, threshold: float | None) -> Tensor:
    """Return the sorted positions of the most suspicious samples, int64 (n,).

    Args:
        suspicion: Larger is more suspicious, (N,).
        budget: Share of the samples to return, in (0, 1), rounded up; None: use the threshold.
        threshold: Return samples above this value; None: use the budget.
    """
    suspicion = suspicion.cpu()
    if threshold is not None:
        return (suspicion > threshold).nonzero().flatten()
    assert budget is not None
    count = math.ceil(budget * len(suspicion) - 1e-9)
    order = torch.argsort(suspicion, descending=True, stable=True)
    return order[:count].sort().values


def precision_recall(found: Tensor, corrupted: Tensor) -> dict[str, float]:
    """Return precision and recall of the flagged samples, in [0, 1].

    Args:
        found: Indices, int64 (n,), n at least 1.
        corrupted: Ground truth, bool (N,), with at least one True.

    Returns:
        "precision": share of the flagged samples that is corrupted; "recall": share of the
        corrupted samples that is flagged.
    """
    hit = int(corrupted.cpu()[found.cpu()].sum())
    return {"precision": hit / len(found), "recall": hit / int(corrupted.sum())}
