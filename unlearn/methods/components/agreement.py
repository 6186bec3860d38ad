"""How well predictions for listed samples agree with those of a network that never saw them.

Shapes: n samples, K classes.
"""

import torch
from torch import Tensor


def rate_predictions(predicted: Tensor, label: Tensor, floor: Tensor, other: Tensor) -> Tensor:
    """Return the agreement of each prediction, float (n,); at most about 1, on average in [0, 1].

    Some samples get their listed label by chance, but it is not known which. So listed labels are judged
    as a set: as many as the floors allow say nothing, that is, agree as well as the other predictions
    do, and each has an equal part of that. A prediction of another class agrees as far as that class is
    expected, relative to the most probable one. (A floor that is compared sample by sample with the
    other classes takes the listed label for the most probable class wherever the others are spread.)

    Args:
        predicted: Predicted classes, int64 (n,).
        label: Listed labels, int64 (n,).
        floor: Probability that a network which never saw the sample predicts its listed label, (n,).
        other: Expected distribution over the other classes, 0 at the listed one, (n, K).
    """
    given = predicted == label
    found = other.gather(1, predicted[:, None])[:, 0] / other.max(1).values.mean().clamp(min=1e-12)
    rest = 1.0 if given.all() else float(found[~given].mean().clamp(max=1))
    allowed = (floor.sum() / given.sum().clamp(min=1)).clamp(max=1)
    return torch.where(given, allowed * rest, found)


def drop_listed(probability: Tensor, label: Tensor) -> Tensor:
    """Return the distributions (n, K) without the classes ``label`` (n,)."""
    other = probability.scatter(1, label[:, None], 0)
    return other / other.sum(1, keepdim=True).clamp(min=1e-12)
