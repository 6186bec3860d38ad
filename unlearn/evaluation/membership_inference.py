"""Membership inference on one model: was a sample part of its training set?

Source: the SVC attack on the true label's confidence, as unlearning uses it (arXiv 2304.04934,
2406.01257). Re-implemented; differs: the members are drawn by class, not the first of the set, and
the modified entropy is that of its paper (arXiv 2003.10595).
Shapes: B, M samples, K classes, F features.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor

MEMBERS = ("stratified", "first")


def confidence(outputs: Tensor, label: Tensor) -> Tensor:
    """Return the softmax probability of the true label, (B, 1)."""
    return outputs.softmax(1).gather(1, label[:, None])


def correctness(outputs: Tensor, label: Tensor) -> Tensor:
    """Return 1 where the label is predicted, else 0, (B, 1)."""
    return (outputs.argmax(1) == label).float()[:, None]


def entropy(outputs: Tensor, label: Tensor) -> Tensor:
    """Return the entropy of the softmax, (B, 1); 0 log 0 is 0."""
    return torch.special.entr(outputs.softmax(1)).sum(1, keepdim=True)


def modified_entropy(outputs: Tensor, label: Tensor) -> Tensor:
    """Return -(1 - p_y) log p_y - sum over c != y of p_c log(1 - p_c), (B, 1)."""
    p = outputs.double().softmax(1)
    own = torch.nn.functional.one_hot(label, outputs.shape[1]).bool()
    certain = torch.where(own, p, 1 - p).clamp_min(torch.finfo(p.dtype).tiny)
    return -(torch.where(own, 1 - p, p) * certain.log()).sum(1, keepdim=True).float()


def class_probabilities(outputs: Tensor, label: Tensor) -> Tensor:
    """Return the whole softmax, (B, K)."""
    return outputs.softmax(1)


FEATURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "confidence": confidence,
    "correctness": correctness,
    "entropy": entropy,
    "modified_entropy": modified_entropy,
    "probabilities": class_probabilities,
}


def draw_stratified(label: Tensor, count: int, seed: int) -> Tensor:
    """Return sorted positions of ``count`` samples, stratified by the labels (N,).

    Counts per class are rounded by largest remainders, so that the sum is exact.

    Raises:
        ValueError: If there are fewer samples.
    """
    if count > len(label):
        raise ValueError(f"cannot draw {count} members of {len(label)} samples")
    sizes = torch.bincount(label)
    exact = sizes.double() * count / len(label)
    take = exact.floor().long()
    left = count - int(take.sum())
    take[torch.argsort(exact - take, descending=True, stable=True)[:left]] += 1
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(label), generator=generator)
    parts = [order[label[order] == c][: int(n)] for c, n in enumerate(take.tolist())]
    return torch.cat(parts).sort().values


def classify_membership(
    members: Tensor, others: Tensor, targets: Tensor, *, penalty: float = 3.0
) -> float:
    """Return the fraction of targets that a support vector classifier labels as non-members.

    RBF kernel, C = ``penalty``, gamma = 1 / F, no scaling, trained on all of both classes.

    Args:
        members: Features of training samples, (M, F).
        others: Features of as many other samples, (M, F).
        targets: Features of the samples to classify, (B, F).
        penalty: C of the classifier; 3 in the papers.

    Returns:
        A fraction in [0, 1]; higher: looks unseen. It is not an accuracy; 0.5 has no special meaning.

    Raises:
        ValueError: If the classes are not balanced or empty.
    """
    if len(members) != len(others) or not len(members) or not len(targets):
        raise ValueError(
            f"the attack needs as many members as others, got {len(members)} and {len(others)}, "
            f"and at least one target, got {len(targets)}"
        )
    features = torch.cat([members, others]).numpy()
    seen = torch.cat([torch.ones(len(members)), torch.zeros(len(others))]).numpy()
    count = None
    pairs, counts = np.unique(np.column_stack([features, seen]), axis=0, return_counts=True)
    if len(pairs) <= 4:  # feature with two values: same problem, a thousandth of the time
        features, seen, count = pairs[:, :-1], pairs[:, -1], counts
    attack = SVC(C=penalty, kernel="rbf", gamma="auto").fit(features, seen, sample_weight=count)
    return float((attack.predict(targets.numpy()) == 0).mean())
