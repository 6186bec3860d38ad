"""One unlearning of a job, and what it leaves behind."""

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
from unlearn.methods.base import UnlearningMethod
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.pipeline.context import RunContext, build_method
from unlearn.training.unlearning import LightningFit

if TYPE_CHECKING:
    from unlearn.methods.localization.mask import Mask


@dataclass
class UnlearningResult:
    """What an unlearning left behind.

    Attributes:
        model: None if the loss was lost.
        seconds: Without the evaluator's share.
        peak_bytes: Most memory that was used.
        images_seen: Of all training batches.
        notes: The method's, for the row.
        reason: Why there is no model.
        curves: Values and step, still to be logged.
        mask: Of a localized method: what it chose.
    """

    model: nn.Module | None
    seconds: float
    peak_bytes: int
    images_seen: int
    notes: dict[str, Any]
    reason: str | None = None
    curves: Sequence[tuple[dict[str, float], int]] = ()
    mask: "Mask | None" = None

    def replay_curves(self, loggers: Sequence[Logger]) -> None:
        """Hand curves that no logger has seen yet to the loggers."""
        for logger in loggers:
            for values, step in self.curves:
                logger.log_metrics(values, step=step)
            if self.curves:
                logger.save()


def get_mask(method: UnlearningMethod) -> "Mask | None":
    """Return what a localized method chose; None of another."""
    return method.mask if isinstance(method, UnlearningMethod) else None


def build_run(
    context: RunContext, *, seed: int, loggers: Sequence[Logger]
) -> tuple[UnlearningMethod, Monitor, LightningFit, Request]:
    """Return the job's method, what watches it, what trains it, and what it may see."""
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
    return method, monitor, fit, context.task.request(oracle=context.job.config["oracle"])


def run_method(
    context: RunContext, model: nn.Module, *, seed: int, loggers: Sequence[Logger]
) -> UnlearningResult:
    """Run the method on its own copy of ``model``, timed without the evaluator's share."""
    method, monitor, fit, request = build_run(context, seed=seed, loggers=loggers)
    own = copy.deepcopy(model)
    environment.reset_peak_memory()
    started = time.perf_counter()
    try:
        healed = method.unlearn(own, request, fit)
        if context.engine.device.type == "cuda":
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
