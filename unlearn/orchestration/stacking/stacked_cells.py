"""Unlearns cells of a sweep several at once, where ``stack`` wants that; their turns find the outcomes.

A cell that fails this way, or whose loss is lost, has no outcome and is made alone, as if nothing were.
"""

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unlearn.core import environment
from unlearn.core.job import Job
from unlearn.evaluation.monitor import Monitor
from unlearn.models.expansion.expanded import drop
from unlearn.orchestration.stacking.shared_models import ALIKE
from unlearn.pipeline.context import RunContext, method_of
from unlearn.pipeline.forget_set import prepared
from unlearn.pipeline.run_method import Outcome, equipped, mask_of
from unlearn.pipeline.sequential_requests import Requests
from unlearn.pipeline.stacked_training import WORTH, width
from unlearn.pipeline.trained_models import original
from unlearn.training.stacked.pretraining import Member, obstacle
from unlearn.training.stacked.speedup import speedup
from unlearn.training.stacked.unlearning import Course, Together, unfit
from unlearn.training.unlearning import precision_of

log = logging.getLogger(__name__)

OWN = ("epochs", "optimizer", "removal_optimizer", "schedule")
"""Options of a method in which the cells of one stack may differ, besides seeds."""

SEEDS = ("seed", "original_seed")

WITHIN = ("localization", "mask_batch_norm", "mask_head", "mask_trainable")
"""Keys of a config that the cells of one stack have in common besides those of their models."""


def kin(config: Mapping[str, Any]) -> str | None:
    """Return what the cells of one stack have in common; None: the cell is made alone."""
    alone = any(config.get(key) is not None for key in ("checkpoint", "candidates"))
    if alone or width(dict(config)) < 2:
        return None
    method = {key: value for key, value in config["method"].items() if key not in OWN}
    same = {key: config.get(key) for key in ALIKE}
    within = {key: config.get(key) for key in WITHIN}
    shared = [_unseeded([method, within]), same, config["paths"]["checkpoints"]]
    return json.dumps(shared, sort_keys=True)


def _unseeded(node: Any) -> Any:
    """Return options without seeds: no loss reads one, they serve the preparation."""
    if isinstance(node, list):
        return [_unseeded(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {key: _unseeded(value) for key, value in node.items() if key not in SEEDS}


def likeness(one: Mapping[str, Any], two: Mapping[str, Any]) -> int:
    """Return in how many keys that a forget set's size depends on two configs differ."""
    return sum(one.get(key) != two.get(key) for key in ("discovery", "corrupted", "forget_set"))


class Curves:
    """Keeps what a logger is told."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.said: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        """Keep values and step."""
        self.said.append((values, step))

    def save(self) -> None:
        """Do nothing."""


@dataclass
class Companion:
    """A cell of a stack."""

    job: Job
    context: RunContext
    course: Course
    monitor: Monitor
    curves: Curves

    def outcome(self, count: int) -> Outcome | None:
        """Return what its unlearning left behind; None if it was not brought to its end."""
        course = self.course
        healed = course.finish()
        if healed is None:
            return None
        return Outcome(
            drop(healed).eval(),
            course.seconds - self.monitor.seconds,
            environment.peak_bytes(),
            course.images_seen,
            course.method.notes | {"stacked": count},
            curves=self.curves.said,
            mask=mask_of(course.method),
        )


def unlearn_together(jobs: Sequence[Job]) -> dict[str, Outcome]:
    """Unlearn the jobs at once, up to the evaluation; all are of one ``kin``.

    Returns:
        What is left behind, by run id; a job that is to be made alone has none.
    """
    if len(jobs) < 2 or unfit(method_of(jobs[0])) is not None:
        return {}
    environment.reset_peak()
    found = [_begun(job) for job in jobs]
    cells = [cell for cell in found if cell is not None]
    if len(cells) < 2 or not _worth(cells):
        return {}
    log.info("%s: %d cells at once ...", jobs[0].names["method"], len(cells))
    first = cells[0]
    precision = precision_of(first.course.method, first.context.engine)
    kind = first.context.engine.device.type
    half = precision == "bf16-mixed"
    try:
        Together(
            [cell.course for cell in cells], lambda: torch.autocast(kind, torch.bfloat16, half)
        ).run()
    except Exception as error:  # out of memory, or a loss that cannot be mapped
        log.warning("one by one: unlearning as a stack failed: %s", str(error).splitlines()[0])
        return {}
    outcomes = {cell.job.run_id: cell.outcome(len(cells)) for cell in cells}
    return {run_id: outcome for run_id, outcome in outcomes.items() if outcome is not None}


def _begun(job: Job) -> Companion | None:
    """Return a job before its first step; None if it is to be made alone."""
    with contextlib.suppress(ValueError, RuntimeError):  # it says itself what is wrong
        context = prepared(job)
        if Requests(context).count > 1:  # in a row: each starts where the last one ended
            return None
        model, _ = original(context)
        curves: Any = Curves()
        seed = job.config["seeds"]["unlearn"]
        method, monitor, fit, request = equipped(context, seed=seed, loggers=[curves])
        reason = obstacle(context.engine, model, precision_of(method, context.engine))
        if reason is not None:
            log.info("one by one: %s", reason)
            return None
        course = Course(method, model, request, fit)
        if course.error is None and unfit(method) is None:  # hooks may come with the preparation
            return Companion(job, context, course, monitor, curves)
    return None


def _worth(cells: Sequence[Companion]) -> bool:
    """Say whether the stack is wanted, or is faster by a few steps of copies."""
    first = cells[0]
    if str(first.job.config["stack"]).lower() != "auto":
        return True
    members = [Member(c.course.model, c.course.request.everything(), 0) for c in cells]
    times = speedup(
        members, first.course.method.batch_size, first.context.engine,
        augment=first.context.dataset.augment,
    )  # fmt: skip
    if times < WORTH:
        log.info("one by one: %d at once are %.2f times as fast", len(cells), times)
    return times >= WORTH
