"""Selective synaptic dampening, SSD (Foster et al., arXiv 2308.07707). Re-implemented.

As in the corrective benchmark (arXiv 2402.14015), weights are compared with their importance for the
retain set; differs: the paper compares with all training data.
"""

from torch import nn

from unlearn.core.types import Request
from unlearn.methods.components.dampening import Dampening, dampen_model


class SSD(Dampening):
    """Dampen weights that are far more important for the forget set than for the retain set."""

    def __init__(
        self, *, alpha: float, lambda_: float, lambda_relative: bool, batch_size: int, seed: int
    ) -> None:
        """Store the options.

        Args:
            alpha: Weights with forget importance > alpha * retain importance are selected, >= 0.
            lambda_: Selected weights are multiplied by min(1, lambda * retain / forget), >= 0.
            lambda_relative: Whether ``lambda_`` is a multiple of alpha.
            batch_size: B of the importances.
            seed: Seed of the assignment of samples to batches.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(batch_size=batch_size, seed=seed)
        for key, value in (("alpha", alpha), ("lambda_", lambda_)):
            if not value >= 0:
                raise ValueError(f"method.{key} must be at least 0, got {value}")
        self.alpha = alpha
        self.lambda_ = lambda_ * alpha if lambda_relative else lambda_

    def edit_model(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the model with selected weights dampened."""
        forget, retain = self.compute_importances(model, request)
        self.notes["dampened_fraction"] = dampen_model(
            model, forget, retain, alpha=self.alpha, lambda_=self.lambda_
        )
        return model
