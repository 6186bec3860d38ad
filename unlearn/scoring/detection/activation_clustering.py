"""Activation clustering: flag the smaller of two clusters within a class.

Source: Chen et al., 2018, https://arxiv.org/abs/1811.03728 (algorithm 1; sizes and silhouettes,
section 4). Re-implemented with scikit-learn. Differs: of the paper's three tests of a cluster, the
two without a second training (relative size, silhouette) are used, combined.
Shapes: N samples, E features, n samples of a class.
"""

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from torch import Tensor

from unlearn.models.inference import compute_embedding
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.detection.base import Detector

REDUCTIONS = {"ica": FastICA, "pca": PCA}


def reduce_features(
    features: np.ndarray, reduction: str, num_components: int, seed: int
) -> np.ndarray:
    """Return independent or principal components of features (n, E), (n, <= num_components)."""
    rank = int(np.linalg.matrix_rank(features - features.mean(0)))
    count = min(num_components, rank)
    with warnings.catch_warnings():  # nearly converged components are good enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        return REDUCTIONS[reduction](n_components=count, random_state=seed).fit_transform(features)


def smaller_cluster(points: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Return the smaller of two k-means clusters as a mask, bool (n,), and the mean silhouette."""
    options: dict[str, Any] = {"n_init": 10, "random_state": seed}  # typed as text in stubs
    group = KMeans(2, **options).fit_predict(points)
    small = group == int(group.mean() < 0.5)
    return small, float(silhouette_score(points, group))


class ActivationClustering(Detector):
    """Flag per class the smaller cluster of features, if it is small and well separated."""

    def __init__(
        self,
        *,
        reduction: str,
        num_components: int,
        max_size: float,
        min_silhouette: float,
        seed: int,
    ) -> None:
        """Store the options.

        Args:
            reduction: "ica" or "pca".
            num_components: Maximum number of components to cluster in.
            max_size: Maximum share of its class that a flagged cluster has, in (0, 0.5].
            min_silhouette: Minimum mean silhouette of the two clusters, in [-1, 1].
            seed: Seed of components and clusters.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"forget_set.reduction must be ica or pca, got {reduction}")
        if not 0 < max_size <= 0.5:
            raise ValueError(f"forget_set.max_size must be in (0, 0.5], got {max_size}")
        if not -1 <= min_silhouette <= 1:
            raise ValueError(f"forget_set.min_silhouette must be in [-1, 1], got {min_silhouette}")
        self.reduction = reduction
        self.num_components = num_components
        self.max_size = max_size
        self.min_silhouette = min_silhouette
        self.seed = seed

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the flagged samples; their classes are in the notes."""
        features = compute_embedding(subject.model(), subject.data).numpy()
        label, found, classes = subject.data.label.cpu(), [], []
        for c in label.unique().tolist():
            rows = (label == c).nonzero().flatten()
            own = features[rows.numpy()].astype(np.float64)
            if len(np.unique(own, axis=0)) < 3:  # too few distinct points for two clusters
                continue
            points = reduce_features(own, self.reduction, self.num_components, self.seed)
            small, silhouette = smaller_cluster(points, self.seed)
            if small.mean() <= self.max_size and silhouette >= self.min_silhouette:
                found.append(rows[torch.from_numpy(small)])
                classes.append(c)
        self.notes["classes"] = classes
        return torch.cat([torch.empty(0, dtype=torch.int64), *found]).sort().values
