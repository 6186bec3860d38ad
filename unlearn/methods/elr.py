"""ELR: early-learning regularisation, which keeps predictions near their running mean.

Liu et al., arXiv 2007.00151. Re-implemented. Shapes: N samples, B batch, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, ImageSet
from unlearn.methods.components.robust_objective import RobustObjective
from unlearn.methods.retrain import RobustRetrain

CLIP = 1e-4


class ELRObjective(RobustObjective):
    """Cross-entropy plus weight * mean log(1 - <target, prediction>), with a target per sample."""

    targets: Tensor

    def __init__(self, *, momentum: float, weight: float) -> None:
        """Store the options.

        Args:
            momentum: Weight of the previous target, the paper's beta, in [0, 1).
            weight: Weight of the regularisation, the paper's lambda, at least 0.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if weight < 0:
            raise ValueError(f"weight must be at least 0, got {weight}")
        self.momentum, self.weight = momentum, weight

    def start(self, model: nn.Module, data: ImageSet, *, seed: int) -> None:
        """Set all targets to 0."""
        super().start(model, data, seed=seed)
        targets = torch.zeros(int(data.index.max()) + 1, data.num_classes)
        self.register_buffer("targets", targets.to(next(model.parameters()).device))

    def compute_loss(self, forward: Forward, batch: Batch) -> Tensor:
        """Update the targets of the batch, then return the loss; it may be negative."""
        logits = forward(batch.image).float()
        probability = logits.softmax(1).clamp(CLIP, 1 - CLIP)
        with torch.no_grad():
            now = probability / probability.sum(1, keepdim=True)
            old = self.targets[batch.index]
            self.targets[batch.index] = self.momentum * old + (1 - self.momentum) * now
        agreement = (self.targets[batch.index] * probability).sum(1)
        return F.cross_entropy(logits, batch.label) + self.weight * (1 - agreement).log().mean()


class ELR(RobustRetrain):
    """Train a new network on the retain set with early-learning regularisation."""
