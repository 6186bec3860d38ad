"""Gradient ascent on the forget set, the oldest baseline; as run in REM's benchmark (arXiv 2505.17730, 4.5).

Re-implemented. Differs: a cap on the epochs; a model that has forgotten already is returned as it is.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward
from unlearn.methods.components.forget_until import RemovalMethod


class GradientAscent(RemovalMethod):
    """Raise the cross-entropy of the forget set's given labels until they are forgotten."""

    stackable = True

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the negated mean cross-entropy."""
        forget = batch["forget"]
        return -F.cross_entropy(forward(forget.image), forget.label)
