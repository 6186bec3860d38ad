"""SalUn: random relabelling that trains only salient weights (Fan et al., arXiv 2310.12508).

Re-implemented from the description. Form "input_saliency" is what the benchmark of
arXiv 2505.17730 calls SalUn: no mask and no new labels, but a penalty on the saliency of the forget
set's inputs.
"""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.components.frozen_parameters import FrozenParameters
from unlearn.methods.components.losses import is_member
from unlearn.methods.components.saliency import (
    compute_drifting_gradient,
    compute_summed_gradient,
    input_saliency_loss,
    select_top_fraction,
)
from unlearn.methods.random_label import RandomLabelling

SALIENT_CHOICES = ("largest", "smallest")
FORMS = ("weight_saliency", "input_saliency")


class SalUn(RandomLabelling):
    """Random relabelling that trains only the weights with the largest forget-set gradient."""

    def __init__(
        self,
        *,
        form: str,
        salient_fraction: float,
        salient: str,
        drift: bool,
        alpha: float,
        **relabelling: Any,
    ) -> None:
        """Store the options; see ``RandomLabelling`` for the rest.

        Args:
            form: "weight_saliency" or "input_saliency".
            salient_fraction: Share of all weights that are trained, in (0, 1]; "weight_saliency".
            salient: Train the weights with the "largest" or the "smallest" gradient.
            drift: Take ascent steps while summing the gradient, as published code does.
            alpha: Weight of the penalty, at least 0; "input_saliency".
            relabelling: Arguments of ``RandomLabelling``.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__(**relabelling)
        if form not in FORMS:
            raise ValueError(f"method.form must be one of {', '.join(FORMS)}, got {form}")
        if salient not in SALIENT_CHOICES:
            raise ValueError(f"method.salient must be largest or smallest, got {salient}")
        if not 0 < salient_fraction <= 1:
            raise ValueError(f"method.salient_fraction must be in (0, 1], got {salient_fraction}")
        if alpha < 0:
            raise ValueError(f"method.alpha must be at least 0, got {alpha}")
        self.by_weight = form == "weight_saliency"
        self.stackable = self.compilable = self.by_weight  # the other loss computes gradients
        self.mean_loss = self.by_weight  # the other is a mean over the forget samples of a batch
        self.salient_fraction = salient_fraction
        self.descending = salient == "largest"
        self.drift = drift
        self.alpha = alpha
        self.frozen: list[L.Callback] = []

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Select the salient weights; return the model."""
        model = super().prepare(model, request)
        if self.by_weight:
            slope = (
                compute_drifting_gradient(model, request.forget, self.batch_size, self.optimizer)
                if self.drift
                else compute_summed_gradient(model, request.forget, self.batch_size)
            )
            size = {name: value.abs() for name, value in slope.items()}
            self.salient = select_top_fraction(
                size, self.salient_fraction, descending=self.descending
            )
            self.frozen = [FrozenParameters(self.salient)]
        return model

    def get_spread_obstacle(self, parts: int) -> str | None:
        """Return why the method cannot be trained on batches in parts; None if it can."""
        if not self.by_weight:
            return "form=input_saliency averages over the forget samples of each batch"
        return super().get_spread_obstacle(parts)

    def callbacks(self) -> list[L.Callback]:
        """Return the method and the callback that freezes the other weights."""
        return [self, *self.frozen]

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of the form."""
        if self.by_weight:
            return super().loss(forward, batch)
        (part,) = batch.values()
        found = is_member(part.index, self.forget.index)
        return input_saliency_loss(forward, part, found, self.alpha)
