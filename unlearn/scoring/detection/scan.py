"""SCAn: classes whose features split into two groups more than those of other classes.

Source: "Demon in the Variant" (arXiv 1908.00686). Re-implemented, simplified. Differs: two groups with
the pooled covariance of a trusted set in place of an EM fit and a likelihood ratio; the same idea.
Shapes: N samples, E features, n samples of a class, K classes, t trusted images.
"""

import logging
import math
from typing import Any

import torch
from torch import Tensor

from unlearn.models.inference import compute_embedding
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.detection.base import Detector

log = logging.getLogger(__name__)

CUTS = ("midpoint", "gmm")
RIDGE, MOST_STEPS = 1e-3, 100
FEW_CLASSES = 5
"""Below this number of classes the spread of their scores says little."""


class Scan(Detector):
    """Flag one of the two groups of each class that splits far more than the others."""

    uses_trusted = True

    def __init__(self, *, threshold: float, cut: str, seed: int) -> None:
        """Store the options.

        Args:
            threshold: Classes with a larger standardised score are attacked; above 0.
            cut: Between the groups: "midpoint" of their means; "gmm": of a mixture of two normal
                distributions, better if few samples are corrupted.
            seed: Seed of that mixture.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__()
        if cut not in CUTS:
            raise ValueError(f"forget_set.cut must be midpoint or gmm, got {cut}")
        if not threshold > 0:
            raise ValueError(f"forget_set.threshold must be above 0, got {threshold}")
        self.threshold, self.cut, self.seed = threshold, cut, seed

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the sorted indices of the flagged samples, int64 (n,); scores are in the notes."""
        model, k = subject.model(), subject.data.num_classes
        if k < FEW_CLASSES:
            log.warning("discovery=scan compares classes with each other, and there are only %d", k)
        features = compute_embedding(model, subject.data).double().cpu()
        label = subject.data.label.cpu()
        known, right = features, label
        if subject.trusted is not None:
            known = compute_embedding(model, subject.trusted).double().cpu()
            right = subject.trusted.label.cpu()
        precision = torch.linalg.inv(pool_covariance(known, right))
        splits = [split_class(features[label == c], precision) for c in range(k)]
        score = standardise_scores(torch.tensor([s for _, _, s in splits], dtype=torch.float64))
        attacked = (score > self.threshold).nonzero().flatten().tolist()
        self.notes |= {"classes": attacked, "score": float(score.max())}
        found = [torch.empty(0, dtype=torch.int64)]
        for c in attacked:
            direction, limit, _ = splits[c]
            rows = (label == c).nonzero().flatten()
            place = features[rows] @ direction
            high = self._cut_groups(place, limit)
            own = known[right == c] @ direction > limit if subject.trusted is not None else high
            found.append(rows[high if own.double().mean() < 0.5 else ~high])
        return torch.cat(found).sort().values

    def _cut_groups(self, place: Tensor, limit: float) -> Tensor:
        """Return which samples are in the group above, bool (n,), of projections (n,)."""
        if self.cut == "midpoint":
            return place > limit
        from sklearn.mixture import GaussianMixture

        values = place[:, None].numpy()
        mixture: Any = GaussianMixture(
            2, random_state=self.seed, means_init=[[place.min()], [place.max()]]
        )
        group = torch.from_numpy(mixture.fit(values).predict(values))
        return group == int(mixture.means_.argmax())


def pool_covariance(features: Tensor, label: Tensor) -> Tensor:
    """Return the covariance within classes (E, E) of features (t, E), with a small ridge."""
    centred = features.clone()
    for c in label.unique():
        centred[label == c] -= features[label == c].mean(0)
    covariance = centred.T @ centred / len(features)
    ridge = RIDGE * covariance.diagonal().mean().clamp_min(1e-12)
    return covariance + ridge * torch.eye(len(covariance), dtype=covariance.dtype)


def split_class(features: Tensor, precision: Tensor) -> tuple[Tensor, float, float]:
    """Return direction (E,), threshold and separation of the two groups of features (n, E).

    The groups start at the sign of the first principal component; the direction is
    ``precision (m1 - m2)``, the threshold the middle of both means, until the groups are stable. The
    separation is ``p1 p2 (m1 - m2)' precision (m1 - m2)``; 0 if a group is empty.
    """
    none = torch.zeros(features.shape[1], dtype=features.dtype), 0.0, 0.0
    if len(features) < 3:
        return none
    centred = features - features.mean(0)
    direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    high = centred @ direction > 0
    limit = 0.0
    for _ in range(MOST_STEPS):
        if not 0 < int(high.sum()) < len(high):
            return none
        means = features[high].mean(0), features[~high].mean(0)
        direction = precision @ (means[0] - means[1])
        limit = float(direction @ (means[0] + means[1])) / 2
        again = features @ direction > limit
        if torch.equal(again, high):
            break
        high = again
    if not 0 < int(high.sum()) < len(high):
        return none
    gap = features[high].mean(0) - features[~high].mean(0)
    share = high.double().mean().item()
    return direction, limit, share * (1 - share) * float(gap @ precision @ gap)


def standardise_scores(score: Tensor) -> Tensor:
    """Return ``(J - median) / (1.4826 MAD)`` of scores (K,); infinite above a median without spread."""
    middle = score.median()
    spread = 1.4826 * (score - middle).abs().median().item()
    if spread > 0:
        return (score - middle) / spread
    return torch.where(score > middle, math.inf, 0.0).double()
