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
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.orchestration.stacking.shared_models import SHARED_KEYS
from unlearn.pipeline.context import RunContext, build_method
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.pipeline.run_method import UnlearningResult, build_run, get_mask
from unlearn.pipeline.sequential_requests import SequentialRequests
from unlearn.pipeline.stacked_training import MIN_SPEEDUP, stack_width
from unlearn.pipeline.trained_models import load_original
from unlearn.training.stacked.pretraining import StackMember, find_obstacle
from unlearn.training.stacked.speedup import measure_speedup
from unlearn.training.stacked.unlearning import StackedRun, StackedUnlearner, find_stack_obstacle
from unlearn.training.unlearning import precision_of

log = logging.getLogger(__name__)

CELL_OPTIONS = ("epochs", "optimizer", "removal_optimizer", "schedule")
"""Options of a method in which the cells of one stack may differ, besides seeds."""

SEED_KEYS = ("seed", "original_seed")

LOCALIZATION_KEYS = ("localization", "mask_batch_norm", "mask_head", "mask_trainable")
"""Keys of a config that the cells of one stack have in common besides those of their models."""


def stack_key(config: Mapping[str, Any]) -> str | None:
    """Return what the cells of one stack have in common; None: the cell is made alone."""
    alone = any(config.get(key) is not None for key in ("checkpoint", "auto_methods"))
    if alone or stack_width(dict(config)) < 2:
        return None
    method = {key: value for key, value in config["method"].items() if key not in CELL_OPTIONS}
    same = {key: config.get(key) for key in SHARED_KEYS}
    within = {key: config.get(key) for key in LOCALIZATION_KEYS}
    shared = [_drop_seeds([method, within]), same, config["paths"]["checkpoints"]]
    return json.dumps(shared, sort_keys=True)


def _drop_seeds(node: Any) -> Any:
    """Return options without seeds: no loss reads one, they serve the preparation."""
    if isinstance(node, list):
        return [_drop_seeds(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {key: _drop_seeds(value) for key, value in node.items() if key not in SEED_KEYS}


def size_difference(one: Mapping[str, Any], two: Mapping[str, Any]) -> int:
    """Return in how many keys that a forget set's size depends on two configs differ."""
    return sum(one.get(key) != two.get(key) for key in ("discovery", "corrupted", "forget_set"))


class CurveRecorder:
    """Keeps what a logger is told."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.values: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        """Keep values and step."""
        self.values.append((values, step))

    def save(self) -> None:
        """Do nothing."""


@dataclass
class StackedCell:
    """A cell of a stack."""

    job: Job
    context: RunContext
    run: StackedRun
    monitor: Monitor
    curves: CurveRecorder

    def make_result(self, count: int) -> UnlearningResult | None:
        """Return what its unlearning left behind; None if it was not brought to its end."""
        course = self.run
        healed = course.finish_run()
        if healed is None:
            return None
        return UnlearningResult(
            remove_extra_channels(healed).eval(),
            course.seconds - self.monitor.seconds,
            environment.get_peak_bytes(),
            course.images_seen,
            course.method.notes | {"stacked": count},
            curves=self.curves.values,
            mask=get_mask(course.method),
        )


def unlearn_stack(jobs: Sequence[Job]) -> dict[str, UnlearningResult]:
    """Unlearn the jobs at once, up to the evaluation; all are of one ``kin``.

    Returns:
        What is left behind, by run id; a job that is to be made alone has none.
    """
    if len(jobs) < 2 or find_stack_obstacle(build_method(jobs[0])) is not None:
        return {}
    environment.reset_peak_memory()
    found = [prepare_cell(job) for job in jobs]
    cells = [cell for cell in found if cell is not None]
    if len(cells) < 2 or not _is_faster(cells):
        return {}
    log.info("%s: %d cells at once ...", jobs[0].names["method"], len(cells))
    first = cells[0]
    precision = precision_of(first.run.method, first.context.engine)
    kind = first.context.engine.device.type
    half = precision == "bf16-mixed"
    try:
        StackedUnlearner(
            [cell.run for cell in cells], lambda: torch.autocast(kind, torch.bfloat16, half)
        ).run_all()
    except Exception as error:  # out of memory, or a loss that cannot be mapped
        log.warning("one by one: unlearning as a stack failed: %s", str(error).splitlines()[0])
        return {}
    outcomes = {cell.job.run_id: cell.make_result(len(cells)) for cell in cells}
    return {run_id: outcome for run_id, outcome in outcomes.items() if outcome is not None}


def prepare_cell(job: Job) -> StackedCell | None:
    """Return a job before its first step; None if it is to be made alone."""
    with contextlib.suppress(ValueError, RuntimeError):  # it says itself what is wrong
        context = load_with_forget_set(job)
        if (
            SequentialRequests(context).num_requests > 1
        ):  # in a row: each starts where the last one ended
            return None
        model, _ = load_original(context)
        curves: Any = CurveRecorder()
        seed = job.config["seeds"]["unlearn"]
        method, monitor, fit, request = build_run(context, seed=seed, loggers=[curves])
        reason = find_obstacle(context.engine, model, precision_of(method, context.engine))
        if reason is not None:
            log.info("one by one: %s", reason)
            return None
        course = StackedRun(method, model, request, fit)
        if (
            course.error is None and find_stack_obstacle(method) is None
        ):  # hooks may come with the preparation
            return StackedCell(job, context, course, monitor, curves)
    return None


def _is_faster(cells: Sequence[StackedCell]) -> bool:
    """Say whether the stack is wanted, or is faster by a few steps of copies."""
    first = cells[0]
    if str(first.job.config["stack"]).lower() != "auto":
        return True
    members = [StackMember(c.run.model, c.run.request.get_all_samples(), 0) for c in cells]
    times = measure_speedup(
        members, first.run.method.batch_size, first.context.engine,
        augment=first.context.dataset.augment,
    )  # fmt: skip
    if times < MIN_SPEEDUP:
        log.info("one by one: %d at once are %.2f times as fast", len(cells), times)
    return times >= MIN_SPEEDUP
