"""Recipe of the original model's training."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from unlearn.core.types import ImageSet
from unlearn.methods.components.robust_objective import RobustObjective
from unlearn.models.expansion.expanded import Expanded
from unlearn.training.engine import use_torch_seed

NetworkFactory = Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Recipe of pre-training.

    Attributes:
        epochs: Passes over the training set.
        batch_size: B.
        optimizer: Returns an optimizer for the given parameters.
        schedule: Learning-rate factor of (step, total).
        capacity: Share of the channels at gate points that the deployed network keeps, in (0, 1];
            below 1 the rest are extra channels, which REM can use (its replica form).
        density: Probability that an extra channel is active for a sample during training
            (example-tied dropout, arXiv 2307.09542), in [0, 1]; 0: inactive.
        objective: Objective in place of cross-entropy; None: cross-entropy.
    """

    epochs: int
    batch_size: int
    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[[int, int], float]
    capacity: float
    density: float
    objective: RobustObjective | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 < self.capacity <= 1:
            raise ValueError(f"pretraining.capacity must be in (0, 1], got {self.capacity}")
        if not 0 <= self.density <= 1:
            raise ValueError(f"pretraining.density must be in [0, 1], got {self.density}")
        if self.density and self.capacity == 1:
            raise ValueError("pretraining.density above 0 needs pretraining.capacity below 1")
        if self.objective is not None and self.capacity < 1:
            raise ValueError("pretraining.objective needs pretraining.capacity=1")

    def build_initial_network(
        self, factory: NetworkFactory, data: ImageSet, *, seed: int, mask_seed: int
    ) -> nn.Module:
        """Return the network to train, with random weights.

        Args:
            factory: Called with in_channels, image_size, num_classes, and capacity and extra if
                capacity is below 1.
            data: The training set.
            seed: Seed of the weights.
            mask_seed: Seed of the masks of the extra channels.
        """
        shape = {
            "in_channels": data.image.shape[1],
            "image_size": data.image.shape[-1],
            "num_classes": data.num_classes,
        }
        with use_torch_seed(seed):
            if self.capacity == 1:
                return factory(**shape)
            grown = factory(**shape, capacity=self.capacity, extra=1 - self.capacity)
        return Expanded(grown, num_samples=len(data), density=self.density, seed=mask_seed)
