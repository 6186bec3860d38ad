"""Co-teaching: two networks that train on each other's samples of small loss.

Han et al., arXiv 1804.06872. Re-implemented. Differs: the noise rate is an option, not the true rate;
the optimizer is that of pre-training; the first network is returned. Shapes: B batch, K classes.
"""

import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, ImageSet
from unlearn.methods.components.losses import sample_losses
from unlearn.methods.components.robust_objective import RobustObjective
from unlearn.methods.retrain import RobustRetrain
from unlearn.models.surgery import draw_unrelated_network


def compute_drop_rate(epoch: int, noise_rate: float, ramp_epochs: int) -> float:
    """Return the share of a batch to drop: rises linearly to ``noise_rate`` over ``ramp_epochs``."""
    return noise_rate * min(epoch / ramp_epochs, 1.0)


def select_small_losses(loss: Tensor, drop_rate: float) -> Tensor:
    """Return the rows of the (1 - drop_rate) * B smallest losses, at least one, int64 (n,)."""
    count = max(1, int((1 - drop_rate) * len(loss)))
    return loss.detach().argsort(stable=True)[:count]


class CoTeachingObjective(RobustObjective):
    """Mean cross-entropy of each network on the samples that the other one selects."""

    peer: nn.Module

    def __init__(self, *, noise_rate: float, ramp_epochs: int) -> None:
        """Store the options.

        Args:
            noise_rate: Assumed share of wrong labels, in [0, 1).
            ramp_epochs: Epochs until this share is dropped, at least 1.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__()
        if not 0 <= noise_rate < 1:
            raise ValueError(f"noise_rate must be in [0, 1), got {noise_rate}")
        if ramp_epochs < 1:
            raise ValueError(f"ramp_epochs must be at least 1, got {ramp_epochs}")
        self.noise_rate, self.ramp_epochs = noise_rate, ramp_epochs
        self.drop_rate = 0.0

    def start(self, model: nn.Module, data: ImageSet, *, seed: int) -> None:
        """Draw the second network."""
        super().start(model, data, seed=seed)
        self.peer = draw_unrelated_network(model, seed)
        self.agreement: list[Tensor] = []

    def start_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Set the share of samples to drop."""
        self.drop_rate = compute_drop_rate(epoch, self.noise_rate, self.ramp_epochs)
        self.agreement = []

    def compute_loss(self, forward: Forward, batch: Batch) -> Tensor:
        """Return the sum of both networks' losses on the other's selection."""
        own, other = forward(batch.image).float(), self.peer(batch.image).float()
        self.agreement.append((own.argmax(1) == other.argmax(1)).float().mean().detach())
        losses = sample_losses(own, batch.label), sample_losses(other, batch.label)
        mine, theirs = (select_small_losses(loss, self.drop_rate) for loss in losses)
        return losses[0][theirs].mean() + losses[1][mine].mean()

    def describe(self) -> dict[str, float]:
        """Return the networks' agreement in the last epoch."""
        return {"agreement": torch.stack(self.agreement).mean().item()} if self.agreement else {}


class CoTeaching(RobustRetrain):
    """Train two new networks on the retain set, each on the other's selection; return the first."""
