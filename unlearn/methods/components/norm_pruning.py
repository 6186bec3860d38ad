"""Base of methods that learn masks of batch-norm channels and prune the original model by them."""

import copy
import logging
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.components.norm_scales import (
    ScaleMasks,
    choose_threshold,
    find_scales,
    prune_scales,
)
from unlearn.methods.components.trusted_training import TrustedMethod

log = logging.getLogger(__name__)


class NormPruning(TrustedMethod):
    """Base class of ANP and RNP: ``finish`` prunes the original, whose other values do not change."""

    compilable: bool = False
    full_precision: ClassVar[bool] = True

    def __init__(
        self, *, threshold: float | None, tolerance: float, seed: int, **recipe: Any
    ) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            threshold: Channels whose mask is at most this are pruned, in [0, 1]; None: the largest
                threshold that ``tolerance`` allows.
            tolerance: Accepted relative loss of validation accuracy, in [0, 1].
            seed: Seed of perturbations.
            recipe: Epochs, batch size, optimizer and schedule.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(**recipe)
        for key, value in (("threshold", threshold), ("tolerance", tolerance)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"method.{key} must be in [0, 1], got {value}")
        self.threshold, self.tolerance, self.seed = threshold, tolerance, seed

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Check that the network has batch norm."""
        find_scales(model)

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Create the masks and keep the original's values; return the model."""
        self.model = super().prepare(model, request)
        self.masks = ScaleMasks(self.model)
        self.original = copy.deepcopy(self.model.state_dict())
        self.generator = torch.Generator().manual_seed(self.seed)
        return self.model

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the original with pruned channels."""
        model.load_state_dict(self.original)
        masks, threshold = self.masks.by_layer(), self.threshold
        if threshold is None:
            threshold = choose_threshold(
                model, masks, self.validation, self.tolerance, self.measure_accuracy
            )
        pruned = prune_scales(model, masks, threshold)
        total = sum(mask.numel() for mask in masks.values())
        self.notes |= {"threshold": threshold, "pruned_channels": pruned}
        self.notes["pruned_fraction"] = pruned / total
        return model
