"""How regular a list of bad samples is: by their given labels, and by a model that did not see them.

Bad data of one pattern and one label (a backdoor) are regular, scattered wrong labels are not (arXiv
2505.17730). Nobody tells a user which theirs are; both halves of the estimate need no truth. The
second is the consistency score of Jiang et al. (2021, https://arxiv.org/abs/2002.03206): how likely
a model that was trained without a sample labels it as given. Differs: one model, half of the list
held out. Shapes: N training samples, n listed ones, h held-out ones, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 8
"""Listed samples below which nothing is estimated: each half would hold fewer than four."""
KINDS = (("poison", 0.7), ("interclass_confusion", 0.2), ("random_label", 0.0))
"""Kinds and the least estimate that stands for them: half-way between what was measured of the
three on the embedded digits (docs/advice.md)."""


def label_concentration(label: Tensor, every: Tensor, num_classes: int) -> float:
    """Return how much the labels of a list keep to few classes, in [0, 1].

    That is the chance that two of the list share their label, from 0, as in the data, to 1, one class.

    Args:
        label: Given labels of the list, int64 (n,), n at least 2.
        every: Given labels of the training set, int64 (N,).
        num_classes: K.
    """
    count = torch.bincount(label.cpu(), minlength=num_classes).double()
    pairs = float((count * (count - 1)).sum() / (len(label) * (len(label) - 1)))
    usual = float((torch.bincount(every.cpu(), minlength=num_classes) / len(every)).square().sum())
    return max(0.0, (pairs - usual) / (1 - usual)) if usual < 1 else 0.0


def label_consistency(logits: Tensor, label: Tensor) -> float:
    """Return the share that a model which never saw them labels as given, in [0, 1].

    Args:
        logits: Of the held-out samples, (h, K).
        label: As given, int64 (h,).
    """
    return (logits.argmax(1).cpu() == label.cpu()).double().mean().item()


def held_out(count: int, seed: int) -> Tensor:
    """Return the positions of a random half of a list, sorted int64 (count // 2,)."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count // 2].sort().values


@dataclass(frozen=True)
class Regularity:
    """What is known of a list.

    Attributes:
        count: Listed samples.
        concentration: Of their labels, in [0, 1].
        consistency: Of those that were held out, in [0, 1].
    """

    count: int
    concentration: float
    consistency: float

    @property
    def value(self) -> float:
        """Return the estimate, the mean of both, in [0, 1]."""
        return (self.concentration + self.consistency) / 2

    @property
    def kind(self) -> str:
        """Return the measured kind of corruption that is nearest."""
        return next(kind for kind, least in KINDS if self.value >= least)

    def describe_estimate(self) -> str:
        """Return the estimate and its grounds in a sentence."""
        return (
            f"regularity {self.value:.2f}, nearest to {self.kind}: of {self.count} listed images, "
            f"{self.consistency:.0%} of a half are labelled as listed by a model that did not see "
            f"that half, and their labels keep to few classes by {self.concentration:.2f} of 1"
        )
