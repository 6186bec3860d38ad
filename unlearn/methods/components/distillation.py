"""Frozen teacher networks and the distances to them.

Shapes: B batch, K classes.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REDUCTIONS = ("element", "batch")
Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(model: Network) -> Network:
    """Return a copy in eval mode that requires no gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * mean of KL(teacher || student) at temperature T, a scalar.

    Args:
        student: Logits (B, K).
        teacher: Logits (B, K).
        temperature: Above 0.
    """
    target = F.log_softmax(teacher / temperature, 1)
    mine = F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(mine, target, reduction="batchmean", log_target=True)


def bad_teaching_loss(
    student: Tensor, competent: Tensor, incompetent: Tensor, found: Tensor, reduction: str
) -> Tensor:
    """Return the mean of KL(teacher || student), the teacher chosen per sample (arXiv 2205.08096).

    Args:
        student: Logits (B, K).
        competent: Logits (B, K), the target of retain samples.
        incompetent: Logits (B, K), the target of forget samples.
        found: Whether a sample is in the forget set, bool (B,).
        reduction: "batch" divides the sum by B, "element" by B and K.
    """
    teacher = torch.where(found[:, None], incompetent, competent)
    loss = distillation_loss(student, teacher, 1.0)
    return loss / student.shape[1] if reduction == "element" else loss
