"""REM's losses while redirecting (arXiv 2505.17730, steps 3.1 and 3.2), pure.

full: masked mode, new channels on as each sample's mask says; base: the network to be deployed.
Shapes: B batch, F forget samples drawn beside it.
"""

from torch import Tensor

from unlearn.methods.losses import saturating


def redirect_losses(loss: Tensor, reference: Tensor, beta: float, form: str) -> Tensor:
    """Return what minimising lowers ``loss`` with, per sample, (B,).

    Args:
        loss: Cross-entropy per sample under the full network, (B,).
        reference: The same under the frozen reference, (B,); unused by form "ce".
        beta: Above 0.
        form: "logsig" as the paper's code, "ce" plain cross-entropy, "dpo" weights worse samples more.
    """
    if form == "ce":
        return loss
    gap = loss - reference
    return saturating(gap, beta) if form == "logsig" else -saturating(-gap, beta)


def removal_losses(loss: Tensor, reference: Tensor, beta: float, form: str) -> Tensor:
    """Return what minimising raises ``loss`` with, per sample, (B,).

    Args:
        loss: Cross-entropy per sample under the base network, (B,).
        reference: The same under the frozen reference, (B,); unused by form "ga".
        beta: Above 0.
        form: "npo" (arXiv 2404.05868) or "ga", plain ascent.
    """
    return -loss if form == "ga" else -saturating(loss - reference, beta)


def masked_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Return the sum of the kept values over the number of all, a scalar; values, keep (B,).

    The share of the kept is their weight, as in the paper.
    """
    return (values * keep).sum() / len(values)
