"""Losses shared by several methods.

Shapes: B batch, K classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_losses(logits: Tensor, label: Tensor) -> Tensor:
    """Return the cross-entropy of each sample, (B,), for logits (B, K) and labels (B,)."""
    return F.cross_entropy(logits, label, reduction="none")


def scaled_log_sigmoid(gap: Tensor, beta: float) -> Tensor:
    """Return (2 / beta) log sigmoid(beta * gap), elementwise; at most 0, slope 2 sigmoid(-beta gap)."""
    return (2 / beta) * F.logsigmoid(beta * gap)


def share_weighted_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Return the sum of the kept values divided by the number of all values, a scalar.

    This is their mean weighted by their share, as in the paper; ``values`` and ``keep`` are (B,).
    """
    return (values * keep).sum() / len(values)


def npo_losses(loss: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Return the NPO loss of each sample, whose gradient vanishes for forgotten samples (arXiv 2404.05868).

    Args:
        loss: Cross-entropy per sample under the model, (B,).
        reference: The same under the frozen reference, (B,).
        beta: Inverse temperature, above 0; near 0 this is gradient ascent.

    Returns:
        (B,); minimising it raises ``loss``.
    """
    return -scaled_log_sigmoid(loss - reference, beta)


def is_member(index: Tensor, of: Tensor) -> Tensor:
    """Return whether each entry of ``index`` is in ``of``, bool (B,)."""
    return torch.isin(index, of.to(index.device))


def build_membership_table(of: Tensor, every: Tensor) -> Tensor:
    """Return whether samples are in ``of`` (n,), bool (N,) by index; ``every`` (m,) has all."""
    known = torch.zeros(int(every.max()) + 1, dtype=torch.bool)
    known[of.cpu()] = True
    return known
