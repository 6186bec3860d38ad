"""Trials: what a candidate makes of a part of the forget set, measured on the part it did not see.

Shapes: F forget samples, m held-out ones, K classes.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unlearn.core.errors import CollapsedError
from unlearn.core.types import Fit, Request, Unlearner, join_sets
from unlearn.methods.components.floors import compute_shifted_probabilities
from unlearn.methods.components.healing_score import HealingScore
from unlearn.methods.components.samples import split_positions
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.inference import compute_logits

log = logging.getLogger(__name__)

MAX_MEASURED = 5_000
"""Retain samples on which a trial is measured, at most."""
STOPS_AFTER = 0.3
"""Share of the passes that a method which stops at a floor usually makes."""
READ_COST = 1 / 3
"""Cost of an image that a method measures without training on it: a forward pass alone."""


@dataclass(frozen=True)
class Arm:
    """A candidate with a setting.

    Attributes:
        name: Name of the candidate.
        factor: Factor on its learning rates; 1: as configured.
    """

    name: str
    factor: float = 1.0

    @property
    def label(self) -> str:
        """The name with the setting, for messages and rows."""
        return self.name if self.factor == 1 else f"{self.name}(lr x{self.factor:g})"


@dataclass(frozen=True)
class Trial:
    """The result of an arm on a part of the forget set; fields are plain, so that it can be stored.

    Attributes:
        held: Positions in the forget set of the held-out samples, int64 (m,).
        predicted: Predicted class of each, int64 (m,).
        shifted: Mean predicted distribution over shifted copies of each, (m, K).
        kept: Geometric mean over classes of the accuracy on retained samples relative to the original.
        images: Its cost in trained images: those of its batches, and those it measured at a third.
        seconds: Its duration.
        collapsed: Whether its loss became NaN.
    """

    held: Tensor
    predicted: Tensor
    shifted: Tensor
    kept: float
    images: float
    seconds: float
    collapsed: bool = False


TrialStore = Callable[[Mapping[str, Any], Callable[[], Trial]], Trial]
"""``store(identity, run)``: the stored trial of an identity of plain values, or a new one."""


def run_unstored(identity: Mapping[str, Any], run: Callable[[], Trial]) -> Trial:
    """Return a new trial."""
    return run()


def split_list(size: int, split: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the positions given to the method and those held out, both sorted.

    Splits 0 and 1 are the two ways to use one pair of halves, 2 and 3 those of another, and so on:
    after an even number of splits each sample was held out equally often.
    """
    first, second = split_positions(size, seed + split // 2)
    return (first, second) if split % 2 == 0 else (second, first)


def hold_out(request: Request, given: Tensor, held: Tensor) -> Request:
    """Return the request whose forget set is ``given``; what is held out belongs to the retain set."""
    device = request.forget.label.device
    retain = join_sets(request.retain, request.forget.rows(held.to(device)))
    return replace(request, forget=request.forget.rows(given.to(device)), retain=retain)


def count_images(candidate: Unlearner, request: Request) -> float:
    """Return the expected cost of a candidate in trained images; 0 if it does not train in epochs."""
    epochs = getattr(candidate, "epochs", 0)
    forget, retain = len(request.forget), len(request.retain)
    sizes = {"forget": forget, "retain": retain, "all": forget + retain}
    size = sizes.get(getattr(candidate, "budget_pass", ""), 0)
    extra = getattr(getattr(candidate, "options", None), "removal_batch_size", None) or 0
    batch = getattr(candidate, "batch_size", 0)
    pool = getattr(candidate, "select_samples", None) or retain
    read = 0.0
    if hasattr(candidate, "select"):  # it stops where the list is forgotten, and measures till then
        read = READ_COST * (forget + min(pool, retain))
        epochs = STOPS_AFTER * epochs
    return epochs * (size * (1 + (extra / batch if extra and batch else 0)) + read)


def count_read(method: Any) -> float:
    """Return the cost of the images that a method has measured."""
    return READ_COST * getattr(method, "notes", {}).get("measured_images", 0)


def set_rate(candidate: Any, factor: float) -> None:
    """Multiply the learning rates of a candidate's optimizers."""
    for name in ("optimizer", "removal_optimizer"):
        make = getattr(candidate, name, None)
        if isinstance(make, partial) and "lr" in make.keywords:
            rate = make.keywords["lr"] * factor
            setattr(candidate, name, partial(make, lr=rate))


def get_rate(candidate: Any) -> float | None:
    """Return the learning rate of a candidate; None if it has none."""
    make = getattr(candidate, "optimizer", None)
    return make.keywords.get("lr") if isinstance(make, partial) else None


def prepare_arm(candidate: Unlearner, arm: Arm, request: Request, most: float) -> Any:
    """Return a copy of a candidate for one unlearning.

    It has the arm's setting, takes what is memorized for granted, and trains on ``most`` images at
    most, or for one epoch if that is more.
    """
    own: Any = copy.deepcopy(candidate)
    if arm.factor != 1:
        set_rate(own, arm.factor)
    if hasattr(getattr(own, "stop", None), "force"):
        own.stop.force = True  # tested once, on the whole list
    wanted = count_images(own, request)
    if wanted > most:
        own.epochs = max(1, math.floor(own.epochs * most / wanted))
    return own


def unlearn_counted(
    method: Any, model: nn.Module, request: Request, fit: Fit
) -> tuple[nn.Module | None, float]:
    """Return what a method makes of a copy of ``model``, and its cost in trained images.

    Returns:
        The network without extra channels, in eval mode, None if its loss became NaN; images of its
        batches, and those it measured at a third.
    """
    before = getattr(fit, "images_seen", 0)
    try:
        healed = method.unlearn(copy.deepcopy(model), request, fit)
        healed = remove_extra_channels(healed).eval()
    except CollapsedError:
        healed = None
    return healed, getattr(fit, "images_seen", 0) - before + count_read(method)


def run_trial(
    method: Any, model: nn.Module, half: Request, score: HealingScore, held: Tensor, fit: Fit
) -> Trial:
    """Return the result of a method on a request with held-out samples.

    Args:
        method: A copy for this run alone.
        model: The original; it is copied.
        half: The request without the held-out samples in its forget set.
        score: Holds the held-out samples and the retain samples to measure.
        held: Their positions in the forget set, int64 (m,).
        fit: Trains; counts the images of its batches.
    """
    started = time.perf_counter()
    healed, images = unlearn_counted(method, model, half, fit)
    seconds = time.perf_counter() - started
    plain = remove_extra_channels(model).eval() if healed is None else healed
    return measure_trial(plain, score, held, images, seconds, collapsed=healed is None)


def measure_trial(
    model: nn.Module,
    score: HealingScore,
    held: Tensor,
    images: float = 0.0,
    seconds: float = 0.0,
    collapsed: bool = False,
) -> Trial:
    """Return the trial of a network that is already unlearned."""
    listed = score.listed
    return Trial(
        held=held,
        predicted=compute_logits(model, listed).argmax(1).cpu(),
        shifted=compute_shifted_probabilities(model, listed),
        kept=0.0 if collapsed else score.measure_kept(model),
        images=images,
        seconds=seconds,
        collapsed=collapsed,
    )


def check_trial(trial: Trial, size: int, classes: int) -> Trial:
    """Return a stored trial.

    Raises:
        ValueError: If it does not belong to a list of this size.
    """
    held, m = trial.held, len(trial.held)
    fits = trial.shifted.shape == (m, classes) and trial.predicted.shape == (m,)
    if not fits or (m and int(torch.max(held)) >= size):
        raise ValueError("the stored trial belongs to another list")
    return trial
