"""One unlearning of a job, and its result."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.loggers import Logger
from torch import nn

from unlearn.core import environment
from unlearn.core.errors import CollapsedError
from unlearn.core.types import Request
from unlearn.evaluation.monitor import Monitor
from unlearn.evaluation.predictions import Predictions
from unlearn.methods.auto import Auto
from unlearn.methods.base import UnlearningMethod
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.pipeline.context import RunContext, build_method
from unlearn.pipeline.default_budget import apply_budget
from unlearn.pipeline.trusted_set import build_request
from unlearn.training.engine import Engine
from unlearn.training.unlearning import LightningFit

if TYPE_CHECKING:
    from unlearn.methods.localization.mask import Mask


@dataclass
class UnlearningResult:
    """Result of an unlearning.

    Attributes:
        model: The unlearned model; None if the loss became NaN.
        seconds: Duration without evaluation.
        peak_bytes: Peak memory.
        images_seen: Number of images in all training batches.
        notes: Notes of the method, for the row.
        reason: Why there is no model.
        curves: Values and step, not logged yet.
        mask: Mask of a localized method.
        predictions: Predictions of the model, if they are already known.
    """

    model: nn.Module | None
    seconds: float
    peak_bytes: int
    images_seen: int
    notes: dict[str, Any]
    reason: str | None = None
    curves: Sequence[tuple[dict[str, float], int]] = ()
    mask: "Mask | None" = None
    predictions: Predictions | None = None

    def replay_curves(self, loggers: Sequence[Logger]) -> None:
        """Log the curves that are not logged yet."""
        for logger in loggers:
            for values, step in self.curves:
                logger.log_metrics(values, step=step)
            if self.curves:
                logger.save()


def get_mask(method: UnlearningMethod) -> "Mask | None":
    """Return the mask of a localized method; None for other methods."""
    return method.mask if isinstance(method, UnlearningMethod) else None


def build_run(
    context: RunContext, *, seed: int, loggers: Sequence[Logger]
) -> tuple[UnlearningMethod, Monitor, LightningFit, Request]:
    """Return the job's method, its monitor, its engine and its request."""
    method = build_method(context.job)
    monitor = Monitor(method, context.task, loggers)
    fit = LightningFit(
        context.engine,
        augment=context.dataset.augment,
        seed=seed,
        loggers=loggers,
        callbacks=[monitor],
        title=context.job.names["method"],
    )
    request = build_request(context.task, method, oracle=context.job.config["oracle"])
    apply_budget(context, method, request)
    return method, monitor, fit, request


def run_method(
    context: RunContext, model: nn.Module, *, seed: int, loggers: Sequence[Logger]
) -> UnlearningResult:
    """Run the method on a copy of ``model``, timed without evaluation."""
    from unlearn.pipeline import spread_run

    if spread_run.is_spread(context.job, build_method(context.job)):
        return spread_run.run_spread(context, model, seed=seed)
    method, monitor, fit, request = build_run(context, seed=seed, loggers=loggers)
    if isinstance(method, Auto):
        from unlearn.pipeline.auto_runs import equip_auto  # its tables need pandas

        equip_auto(method, context, model)
    return run_timed(method, copy.deepcopy(model), request, monitor, fit, context.engine)


def run_timed(
    method: Any,
    own: nn.Module,
    request: Request,
    monitor: Monitor,
    fit: LightningFit,
    engine: Engine,
) -> UnlearningResult:
    """Run a method on ``own``, which it may modify, timed without evaluation."""
    environment.reset_peak_memory()
    started = time.perf_counter()
    try:
        healed = method.unlearn(own, request, fit)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started - monitor.seconds
    except CollapsedError as error:
        seconds = time.perf_counter() - started - monitor.seconds
        peak = environment.get_peak_bytes()
        return UnlearningResult(None, seconds, peak, fit.images_seen, method.notes, str(error))
    return UnlearningResult(
        remove_extra_channels(healed).eval(),
        seconds,
        environment.get_peak_bytes(),
        fit.images_seen,
        method.notes,
        mask=get_mask(method),
    )
