"""Confident learning: flag labels that contradict models trained without the sample.

Source: Northcutt, Jiang and Chuang, 2021, https://arxiv.org/abs/1911.00068, with the authors'
library ``cleanlab`` (optional extra ``find``). Predictions are out of fold: from a model trained
with the original's recipe on the other folds. Shapes: N samples, K classes.
"""

import importlib.util

import torch
from torch import Tensor

from unlearn.models.inference import compute_logits
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.detection.base import Detector

FILTERS = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
)


def fold_of(label: Tensor, num_folds: int, seed: int) -> Tensor:
    """Return the fold of each sample, int64 (N,), stratified by class."""
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(label.cpu()[order], stable=True)]
    fold = torch.empty(len(label), dtype=torch.int64)
    fold[order] = torch.arange(len(label)) % num_folds
    return fold


def out_of_fold(subject: ScoringInputs, num_folds: int, seed: int) -> Tensor:
    """Return out-of-fold class probabilities of each sample, float64 (N, K)."""
    data = subject.data
    fold = fold_of(data.label, num_folds, seed)
    out = torch.empty(len(data), data.num_classes, dtype=torch.float64)
    others = [((fold != number).nonzero().flatten(), seed) for number in range(num_folds)]
    for number, model in enumerate(subject.subset_models(others)):
        held = fold == number
        part = data.rows(held.to(data.label.device))
        out[held] = compute_logits(model, part).double().softmax(1).cpu()
    return out


class Cleanlab(Detector):
    """Flag label errors by confident learning."""

    def __init__(self, *, num_folds: int, filter_by: str, seed: int) -> None:
        """Store the options.

        Args:
            num_folds: Number of folds, and of models trained.
            filter_by: Rule for selecting off-diagonal samples, one of ``FILTERS``.
            seed: Seed of the folds and of the models' training.

        Raises:
            ValueError: If an option is out of range, or the library is not installed.
        """
        super().__init__()
        if num_folds < 2:
            raise ValueError(f"forget_set.num_folds must be at least 2, got {num_folds}")
        if filter_by not in FILTERS:
            allowed = ", ".join(FILTERS)
            raise ValueError(f"forget_set.filter_by must be one of {allowed}, got {filter_by}")
        if importlib.util.find_spec("cleanlab") is None:
            raise ValueError(
                "discovery=cleanlab needs the package cleanlab: pip install 'unlearn-bench[find]'"
            )
        self.num_folds = num_folds
        self.filter_by = filter_by
        self.seed = seed

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the sorted indices of the flagged samples, int64 (n,)."""
        from cleanlab.filter import find_label_issues

        probability = out_of_fold(subject, self.num_folds, self.seed)
        label = subject.data.label.cpu()
        self.notes["out_of_fold_accuracy"] = (probability.argmax(1) == label).double().mean().item()
        wrong = find_label_issues(
            label.numpy(), probability.numpy(), filter_by=self.filter_by, n_jobs=1
        )
        return torch.from_numpy(wrong).nonzero().flatten()
