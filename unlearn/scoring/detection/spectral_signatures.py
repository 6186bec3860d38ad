"""Spectral signatures: flag outliers along the top singular vector of a class's features.

Source: Tran, Li and Madry, 2018, https://arxiv.org/abs/1811.00636 (algorithm 1). Re-implemented.
Differs: by default the samples of all classes are ranked together, so that the share removed is
bounded over the whole training set; ``rank: class`` is the paper's.
Shapes: N samples, n of a class, E features.
"""

import torch
from torch import Tensor

from unlearn.models.inference import compute_embedding
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.detection.base import Detector, most_suspicious

RANKS = ("all", "class")


def outlier_score(features: Tensor) -> Tensor:
    """Return the squared product of centred features (n, E) with their top singular vector, (n,)."""
    centred = features.double() - features.double().mean(0)
    vectors = torch.linalg.svd(centred, full_matrices=False).Vh
    return (centred @ vectors[0]).square()


class SpectralSignatures(Detector):
    """Flag the samples with the largest outlier scores."""

    def __init__(self, *, epsilon: float, multiple: float, rank: str) -> None:
        """Store the options.

        Args:
            epsilon: Maximum share of corrupted samples expected in the training set or each class.
            multiple: The flagged share is ``multiple`` * ``epsilon``.
            rank: "all": one ranking over all classes; "class": one per class.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__()
        if rank not in RANKS:
            raise ValueError(f"forget_set.rank must be all or class, got {rank}")
        if not 0 < epsilon * multiple < 1:
            raise ValueError(
                "forget_set.epsilon times forget_set.multiple must be in (0, 1), got "
                f"{epsilon} * {multiple}"
            )
        self.share = epsilon * multiple
        self.rank = rank

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the sorted indices of the flagged samples, int64 (n,)."""
        features = compute_embedding(subject.model(), subject.data)
        label = subject.data.label.cpu()
        score, found = torch.zeros(len(label), dtype=torch.float64), []
        for c in label.unique():
            rows = (label == c).nonzero().flatten()
            score[rows] = outlier_score(features[rows])
            found.append(rows[most_suspicious(score[rows], self.share, None)])
        if self.rank == "class":
            return torch.cat(found).sort().values
        return most_suspicious(score, self.share, None)
