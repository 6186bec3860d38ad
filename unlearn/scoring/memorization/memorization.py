"""Memorization score: gain in accuracy on a sample from training on it (arXiv 2008.03703).

The subsampled estimator of Feldman and Zhang; re-implemented.
Shapes: M models, N samples.
"""

import logging
import math
from typing import ClassVar

import torch
from torch import Tensor

from unlearn.models.inference import compute_logits
from unlearn.scoring.base import Score, ScoringInputs
from unlearn.scoring.memorization.agreement import spearman_correlation

log = logging.getLogger(__name__)


def draw_subset(size: int, fraction: float, seed: int) -> Tensor:
    """Return bool (N,), True for floor(fraction * N) samples drawn without replacement."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[order[: math.floor(fraction * size)]] = True
    return mask


def estimate_memorization(inside: Tensor, correct: Tensor) -> Tensor:
    """Return the accuracy of models that saw a sample minus that of models that did not.

    Args:
        inside: Whether a model was trained on a sample, bool (M, N).
        correct: Whether a model predicts the given label, bool (M, N).

    Returns:
        In [-1, 1], (N,); accuracy is 0 over an empty set of models.
    """
    seen, unseen = inside.double(), (~inside).double()
    hit = correct.double()
    within = (hit * seen).sum(0) / seen.sum(0).clamp_min(1)
    without = (hit * unseen).sum(0) / unseen.sum(0).clamp_min(1)
    return (within - without).float()


def estimate_reliability(inside: Tensor, correct: Tensor) -> float:
    """Return the split-half reliability of the scores, from even and odd models.

    Rank correlation, corrected by the Spearman-Brown formula; NaN for fewer than four models.
    """
    if len(inside) < 4:
        return math.nan
    halves = [estimate_memorization(inside[i::2], correct[i::2]) for i in (0, 1)]
    r = spearman_correlation(*halves)
    return 2 * r / (1 + r)


class Memorization(Score):
    """Train models on random subsets; compare those trained with and without each sample."""

    center: ClassVar[str | float] = 0.5

    def __init__(self, *, num_models: int, subset_fraction: float, seed: int) -> None:
        """Store the options.

        Args:
            num_models: M; the standard error is at worst sqrt(1.19 / M) for a fraction of 0.7.
            subset_fraction: Share of the training set in each subset, in (0, 1).
            seed: Seed of the first subset; model k uses seed + k.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__()
        if num_models < 2 or not 0 < subset_fraction < 1:
            raise ValueError(
                "score.num_models must be at least 2 and score.subset_fraction in (0, 1), "
                f"got {num_models} and {subset_fraction}"
            )
        self.num_models = num_models
        self.subset_fraction = subset_fraction
        self.seed = seed

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the estimate for every sample, (N,)."""
        label = subject.data.label.cpu()
        seeds = range(self.seed, self.seed + self.num_models)
        inside = [draw_subset(len(label), self.subset_fraction, seed) for seed in seeds]
        parts = [(mask.nonzero().flatten(), seed) for mask, seed in zip(inside, seeds, strict=True)]
        correct = []
        for k, model in enumerate(subject.subset_models(parts)):
            log.info("memorization: model %d of %d", k + 1, self.num_models)
            correct.append(compute_logits(model, subject.data).argmax(1).cpu() == label)
        seen, right = torch.stack(inside), torch.stack(correct)
        self.notes["reliability"] = estimate_reliability(seen, right)
        f = self.subset_fraction
        self.notes["standard_error"] = math.sqrt((1 / f + 1 / (1 - f)) / 4 / self.num_models)
        return estimate_memorization(seen, right)
