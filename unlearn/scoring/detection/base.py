"""What a detector is, and what it may look at: the data as received and models of them, no truth.

Shapes: N training samples, n suspects.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from unlearn.scoring.base import SampleScorer, ScoringInputs


class Detector(SampleScorer):
    """Names the samples that it holds to be bad; they become the forget set, false alarms included.

    Its notes become columns of the row.
    """

    @abstractmethod
    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the sorted indices of the suspects, int64 (n,), on the CPU."""


def check_cut(budget: float | None, threshold: float | None) -> None:
    """Check that exactly one way to cut a ranking is chosen.

    Raises:
        ValueError: If none or both are, or the budget is no share.
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
        suspicion: Larger is worse, (N,).
        budget: Share of the samples to take, in (0, 1), rounded up; None: go by the threshold.
        threshold: Take what is above it; None: go by the budget.
    """
    suspicion = suspicion.cpu()
    if threshold is not None:
        return (suspicion > threshold).nonzero().flatten()
    assert budget is not None
    count = math.ceil(budget * len(suspicion) - 1e-9)
    order = torch.argsort(suspicion, descending=True, stable=True)
    return order[:count].sort().values


def precision_recall(found: Tensor, corrupted: Tensor) -> dict[str, float]:
    """Return how good a found set is, fractions in [0, 1].

    Args:
        found: Indices, int64 (n,), n at least 1.
        corrupted: The truth, bool (N,), with at least one True.

    Returns:
        "precision": share of the found that is corrupted; "recall": share of the corrupted that was
        found.
    """
    hit = int(corrupted.cpu()[found.cpu()].sum())
    return {"precision": hit / len(found), "recall": hit / int(corrupted.sum())}
