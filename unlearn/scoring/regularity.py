"""Regularity of a forget set: by its given labels, and by a model trained without it.

Corruption with one pattern and one label (a backdoor) is regular, random wrong labels are not
(arXiv 2505.17730). Both terms of the estimate need no ground truth. The second is the consistency
score of Jiang et al. (2021, https://arxiv.org/abs/2002.03206): the probability that a model trained
without a sample predicts its given label. Differs: one model, half of the forget set held out.
Shapes: N training samples, n forget samples, h held-out samples, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 8
"""Minimum number of forget samples for an estimate: at least four in each half."""
LEVELS = (("high", 0.7), ("medium", 0.2), ("low", 0.0))
"""Levels and their minimum estimates: midpoints of the values measured for backdoor, confused classes
and random labels on the embedded digits (docs/advice.md)."""


def label_concentration(label: Tensor, every: Tensor, num_classes: int) -> float:
    """Return the concentration of the forget set's labels on few classes, in [0, 1].

    The probability that two samples share their label, scaled: 0 as in the data, 1 for one class.

    Args:
        label: Given labels of the forget set, int64 (n,), n at least 2.
        every: Given labels of the training set, int64 (N,).
        num_classes: K.
    """
    count = torch.bincount(label.cpu(), minlength=num_classes).double()
    pairs = float((count * (count - 1)).sum() / (len(label) * (len(label) - 1)))
    usual = float((torch.bincount(every.cpu(), minlength=num_classes) / len(every)).square().sum())
    return max(0.0, (pairs - usual) / (1 - usual)) if usual < 1 else 0.0


def label_consistency(logits: Tensor, label: Tensor) -> float:
    """Return the share of held-out samples whose given label is predicted, in [0, 1].

    Args:
        logits: Logits of the held-out samples, (h, K).
        label: Given labels, int64 (h,).
    """
    return (logits.argmax(1).cpu() == label.cpu()).double().mean().item()


def held_out(count: int, seed: int) -> Tensor:
    """Return the sorted positions of a random half, int64 (count // 2,)."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count // 2].sort().values


@dataclass(frozen=True)
class Regularity:
    """Estimated regularity of a forget set.

    Attributes:
        count: Number of forget samples.
        concentration: Label concentration, in [0, 1].
        consistency: Label consistency of the held-out half, in [0, 1].
    """

    count: int
    concentration: float
    consistency: float

    @property
    def value(self) -> float:
        """Return the estimate, the mean of concentration and consistency, in [0, 1]."""
        return (self.concentration + self.consistency) / 2

    @property
    def level(self) -> str:
        """Return the level of regularity: "high", "medium" or "low"."""
        return next(level for level, least in LEVELS if self.value >= least)

    def describe_estimate(self) -> str:
        """Return a one-line description of the estimate."""
        return (
            f"regularity {self.value:.2f} ({self.level}) from {self.count} forget samples: "
            f"consistency {self.consistency:.2f} (a model trained without half of them predicts "
            f"{self.consistency:.0%} of its labels), label concentration {self.concentration:.2f}"
        )
