"""Label-free score of a model: agreement of predictions among neighbours in its features.

After arXiv 2511.18660. Shapes: N images, E features, K classes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LOWEST = -1e6


def compute_neighbour_score(features: Tensor, probability: Tensor) -> float:
    """Return how far neighbours agree beyond chance, less penalties for classes that are lost.

    Args:
        features: (N, E).
        probability: Class probabilities, (N, K).
    """
    n, k = probability.shape
    near = max(1, n // (2 * k))
    predicted = probability.argmax(1)
    z = F.normalize(features.float(), dim=1)
    similarity = (z @ z.T).fill_diagonal_(-math.inf)
    neighbours = similarity.topk(min(near, n - 1), dim=1).indices
    agreement = (predicted[neighbours] == predicted[:, None]).double().mean().item()
    chance = probability.double().mean(0).square().sum().item()
    required = max(2, math.ceil((1.0 if k < 100 else 0.95) * k))
    least = min(near + 1, max(3, near))
    supported = int((torch.bincount(predicted, minlength=k) >= least).sum())
    if supported < 2 or chance >= 1:
        return LOWEST
    score = (agreement - chance) / (1 - chance)
    score -= max(0.0, required - 1 / chance) / required
    return score - max(0, required - supported) / required
