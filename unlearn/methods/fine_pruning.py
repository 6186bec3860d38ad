"""Fine-Pruning: remove features that are dormant on trusted images, then fine-tune (arXiv 1805.12185).

Liu et al. Re-implemented. Differs: columns of the classifier are pruned, not convolutions, whose channels skip
connections feed as well; accuracy is measured on validation images of the trusted set.
Shapes: E features, K classes.
"""

from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.types import ImageSet, Request
from unlearn.methods.components.classifier_head import find_head
from unlearn.methods.components.frozen_parameters import FrozenParameters
from unlearn.methods.ft_trusted import FtTrusted
from unlearn.models.inference import compute_embedding


class FinePruning(FtTrusted):
    """Zero the classifier's columns of the least active features, then train on the trusted set."""

    def __init__(self, *, tolerance: float, step_fraction: float, **recipe: Any) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            tolerance: Accepted relative loss of validation accuracy, in [0, 1].
            step_fraction: Share of the features that is pruned at a time, in (0, 1].
            recipe: Epochs, batch size, optimizer and schedule.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(**recipe)
        if not 0 <= tolerance <= 1:
            raise ValueError(f"method.tolerance must be in [0, 1], got {tolerance}")
        if not 0 < step_fraction <= 1:
            raise ValueError(f"method.step_fraction must be in (0, 1], got {step_fraction}")
        self.tolerance, self.step_fraction = tolerance, step_fraction
        self.frozen: list[L.Callback] = []

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Check that the network ends in a linear map."""
        find_head(model)

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Prune the classifier; return the model."""
        model = super().prepare(model, request)
        name, head = find_head(model)
        order = rank_dormant_features(model, self.fit_set)
        pruned = self._prune_columns(model, head.weight, order.to(head.weight.device))
        self.notes |= {"pruned_features": len(pruned), "features": len(order)}
        may_move = torch.ones_like(head.weight, dtype=torch.bool)
        may_move[:, pruned] = False
        self.frozen = [FrozenParameters({f"{name}.weight" if name else "weight": may_move})]
        return model

    @torch.no_grad()
    def _prune_columns(self, model: nn.Module, weight: Tensor, order: Tensor) -> Tensor:
        """Zero columns until the accuracy falls too low; return those of the last good state, (p,)."""
        least = (1 - self.tolerance) * self.measure_accuracy(model, self.validation)
        step, done = max(1, round(self.step_fraction * len(order))), 0
        while done + step < len(order):  # at least one feature is kept
            kept = weight.clone()
            weight[:, order[done : done + step]] = 0
            if self.measure_accuracy(model, self.validation) < least:
                weight.copy_(kept)
                break
            done += step
        return order[:done]

    def callbacks(self) -> list[L.Callback]:
        """Return the method and the callback that holds the zeros."""
        return [self, *self.frozen]


def rank_dormant_features(model: nn.Module, data: ImageSet) -> Tensor:
    """Return the classifier's inputs by mean activation on a set, ascending, int64 (E,)."""
    return compute_embedding(model, data).mean(0).argsort(stable=True)
