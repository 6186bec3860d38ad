"""Potion (Schoepf et al., arXiv 2406.09173): label-free dampening of increasing strength.

Re-implemented. Differs: importances and the accuracy on the forget set are computed on un-augmented
images (reference: training augmentation).
"""

import logging
from typing import ClassVar

import torch
from torch import nn

from unlearn.core.types import Request
from unlearn.methods.components.dampening import Dampening, compute_forget_share, dampen_model
from unlearn.methods.components.importance import (
    Measure,
    compute_sorted_ratios,
    compute_undampened_percentile,
    logit_norm,
    percentile,
)
from unlearn.methods.components.removal_stop import RemovalStop

log = logging.getLogger(__name__)


class Potion(Dampening):
    """Dampen a growing share of the original's weights until the forget set is forgotten."""

    measure: ClassVar[Measure] = staticmethod(logit_norm)
    power: ClassVar[int] = 1

    def __init__(
        self,
        *,
        rho: float | str,
        force: bool = False,
        growth: float,
        tries: int,
        batch_size: int,
        seed: int,
    ) -> None:
        """Store the options of the search.

        Args:
            rho: Stop when the accuracy on the forget set's given labels is at most rho, in [0, 1];
                "auto": the floor, see ``RemovalStop``.
                (The paper's other condition, rho times the original's accuracy, implies it.)
            force: With "auto": unlearn although nothing exceeds the floor.
            growth: Factor on phi, the share that determines alpha, after each try; above 1.
            tries: Maximum number of tries.
            batch_size: B of the importances.
            seed: Seed of the assignment of samples to batches.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(batch_size=batch_size, seed=seed)
        if not growth > 1:
            raise ValueError(f"method.growth must be above 1, got {growth}")
        if tries < 1:
            raise ValueError(f"method.tries must be at least 1, got {tries}")
        self.stop = RemovalStop(rho, force=force, name="rho")
        self.growth = growth
        self.tries = tries

    def edit_model(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the first model that has forgotten the forget set, or that of the last try."""
        if self.stop.automatic:
            self.stop.start(model, request, self.measure_accuracy, self.notes)
        if self.stop.nothing:
            return model
        forget, retain = self.compute_importances(model, request)
        ratios = compute_sorted_ratios(forget, retain)
        original = [weight.detach().clone() for weight in model.parameters()]
        phi = compute_forget_share(request)
        for number in range(1, self.tries + 1):
            _restore_weights(model, original)
            alpha = percentile(ratios, compute_undampened_percentile(phi))
            fraction = dampen_model(model, forget, retain, alpha=alpha, lambda_=1.0)
            converged = self.stop.is_reached(self.measure_accuracy(model, request.forget))
            self.notes |= {"tries": number, "alpha": alpha, "dampened_fraction": fraction}
            self.notes["converged"] = converged
            if converged:
                return model
            phi *= self.growth
        log.warning("potion: not forgotten after method.tries=%d; using the last try", self.tries)
        return model


@torch.no_grad()
def _restore_weights(model: nn.Module, original: list[torch.Tensor]) -> None:
    for weight, before in zip(model.parameters(), original, strict=True):
        weight.copy_(before)
