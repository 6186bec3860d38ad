"""Base of training objectives that tolerate wrong labels; for training from scratch.

An objective belongs to one training. It is used by a method (training on the retain set) and by
pre-training (``pretraining.objective``). Shapes: N samples, B batch, C H W image.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, ImageSet

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


class RobustObjective(nn.Module, ABC):
    """Base class of objectives; its parameters, such as a second network, are trained as well."""

    data: ImageSet
    augment: Augmentation | None = None

    def start(self, model: nn.Module, data: ImageSet, *, seed: int) -> None:
        """Create the state of a training.

        Args:
            model: The network to train, with initial weights.
            data: The training data.
            seed: Seed of everything that is drawn here.
        """
        self.data = data
        self.seed = seed

    def start_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Update the state at the start of an epoch, from 0."""

    @abstractmethod
    def compute_loss(self, forward: Forward, batch: Batch) -> Tensor:
        """Return the loss of one step, a scalar."""

    def describe(self) -> dict[str, float]:
        """Return facts about the training for the run's row."""
        return {}

    def __deepcopy__(self, memo: object) -> "RobustObjective":
        """Return a copy of the options; an objective that has started is not copied."""
        new = type(self).__new__(type(self))
        nn.Module.__init__(new)
        for key, value in vars(self).items():
            if not key.startswith("_"):
                object.__setattr__(new, key, value)
        return new
