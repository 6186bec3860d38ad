"""Gradient ascent on the forget set, the oldest baseline; as run in REM's benchmark (arXiv 2505.17730, 4.5).

Re-implemented. Differs: the number of epochs is limited; a model that has already forgotten the
forget set is returned unchanged.
"""

from collections.abc import Mapping

from torch import Tensor

from unlearn.core.types import Batch, Forward
from unlearn.methods.components.forget_until import RemovalMethod
from unlearn.methods.components.losses import sample_losses


class GradientAscent(RemovalMethod):
    """Maximise the cross-entropy on the forget set until it is forgotten."""

    stackable = True
    mean_loss = True

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the negated mean cross-entropy on the forget batch."""
        forget = batch["forget"]
        losses = sample_losses(forward(forget.image), forget.label)
        return self.average_over_remembered(-losses, losses, forget.index)
