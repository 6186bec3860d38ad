"""Layer retraining: one layer is rewound and trained on the retain set only (arXiv 2307.09542).

If the forget accuracy recovers, the layer did not hold the forget set. Re-implemented.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.errors import CollapsedError
from unlearn.core.types import Request
from unlearn.evaluation.diagnosis.layer_rewinding import measure_accuracies, rewind_parameters
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.localized import Localized
from unlearn.models.layers import get_trainable_parameters
from unlearn.training.unlearning import LightningFit

BATCH_NORM = ("update", "freeze")

Curve = list[dict[str, float]]
"""Per epoch, 0 first: "epoch", "forget", "retain"."""


class NamedLayer:
    """A localization given by the names of its parameters."""

    needs_budget = False

    def __init__(self, names: Sequence[str]) -> None:
        """Store the names."""
        self.names = set(names)

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return the mask of the parameters that may change."""
        return {
            n: torch.full(p.shape, n in self.names)
            for n, p in get_trainable_parameters(model).items()
        }


class AccuracyCurve(L.Callback):
    """Records the accuracies on forget and retain set before training and after every epoch."""

    def __init__(self, request: Request) -> None:
        """Store the sets."""
        self.curve: Curve = []
        self._measure = lambda model: measure_accuracies(model, request)

    def _record_accuracies(self, epoch: int, model: Any) -> None:
        self.curve.append({"epoch": epoch, **self._measure(model)})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the state before the first step, as epoch 0."""
        self._record_accuracies(0, pl_module.model)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the state after the epoch."""
        self._record_accuracies(trainer.current_epoch + 1, pl_module.model)


def retrain_layer(
    model: nn.Module,
    earlier: Mapping[str, Tensor],
    request: Request,
    names: Sequence[str],
    method: UnlearningMethod,
    *,
    batch_norm: str,
    fit: LightningFit,
) -> tuple[nn.Module, Curve, str | None]:
    """Return the network with one retrained layer, the curve, and the reason for an early end.

    Args:
        model: The trained network; not modified.
        earlier: Initial parameters of the layer, by name.
        request: Forget and retain set.
        names: Parameters of the layer; all others stay bitwise equal.
        method: Trains on the retain set.
        batch_norm: Running statistics of all layers: "update" or "freeze".
        fit: Training engine.

    Raises:
        ValueError: If ``batch_norm`` is neither.
    """
    if batch_norm not in BATCH_NORM:
        raise ValueError(
            f"diagnosis.retraining.batch_norm must be one of {', '.join(BATCH_NORM)}, "
            f"got {batch_norm}"
        )
    alone = Localized(
        method, localizer=NamedLayer(names), budget=None, batch_norm=batch_norm, head="masked"
    )
    watch = AccuracyCurve(request)
    fit.callbacks = [*fit.callbacks, watch]
    new, reason = rewind_parameters(model, earlier, names), None
    try:
        new = alone.unlearn(new, request, fit)
    except CollapsedError as error:
        reason = str(error)
    return new, watch.curve, reason
