"""Unlearns cells of a sweep as one stack, if ``stack`` is set.

A cell that fails in a stack, or whose loss becomes NaN, has no result and runs again on its own.
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
from unlearn.training.loggers import CurveRecorder
from unlearn.training.stacked.pretraining import StackMember, find_obstacle
from unlearn.training.stacked.speedup import measure_speedup
from unlearn.training.stacked.unlearning import StackedRun, StackedUnlearner, find_stack_obstacle
from unlearn.training.unlearning import precision_of

log = logging.getLogger(__name__)

CELL_OPTIONS = ("epochs", "optimizer", "removal_optimizer", "schedule")
"""Method options that may differ within a stack, besides seeds."""

SEED_KEYS = ("seed", "original_seed")

LOCALIZATION_KEYS = ("localization", "mask_batch_norm", "mask_head", "mask_trainable")
"""Further config keys on which the cells of one stack agree, besides those of their models."""


def stack_key(config: Mapping[str, Any]) -> str | None:
    """Return the key that all cells of a stack share; None: the cell runs on its own."""
    alone = any(config.get(key) is not None for key in ("checkpoint", "auto_methods"))
    if alone or stack_width(dict(config)) < 2:
        return None
    method = {key: value for key, value in config["method"].items() if key not in CELL_OPTIONS}
    same = {key: config.get(key) for key in SHARED_KEYS}
    within = {key: config.get(key) for key in LOCALIZATION_KEYS}
    shared = [_drop_seeds([method, within]), same, config["paths"]["checkpoints"]]
    return json.dumps(shared, sort_keys=True)


def _drop_seeds(node: Any) -> Any:
    """Return options without seeds, which only the preparation uses."""
    if isinstance(node, list):
        return [_drop_seeds(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {key: _drop_seeds(value) for key, value in node.items() if key not in SEED_KEYS}


def size_difference(one: Mapping[str, Any], two: Mapping[str, Any]) -> int:
    """Return the number of differing config keys that affect the size of the forget set."""
    return sum(one.get(key) != two.get(key) for key in ("discovery", "corrupted", "forget_set"))


@dataclass
class StackedCell:
    """A cell of a stack."""

    job: Job
    context: RunContext
    run: StackedRun
    monitor: Monitor
    curves: CurveRecorder

    def make_result(self, count: int) -> UnlearningResult | None:
        """Return the unlearning result; None if the cell did not finish."""
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
    """Unlearn the jobs as one stack, without evaluation; all share one ``stack_key``.

    Returns:
        Unlearning results by run id, without those of jobs that run on their own.
    """
    if len(jobs) < 2 or find_stack_obstacle(build_method(jobs[0])) is not None:
        return {}
    environment.reset_peak_memory()
    found = [prepare_cell(job) for job in jobs]
    cells = [cell for cell in found if cell is not None]
    if len(cells) < 2 or not _is_faster(cells):
        return {}
    log.info("%s: %d cells as one stack ...", jobs[0].names["method"], len(cells))
    first = cells[0]
    precision = precision_of(first.run.method, first.context.engine)
    kind = first.context.engine.device.type
    half = precision == "bf16-mixed"
    try:
        StackedUnlearner(
            [cell.run for cell in cells], lambda: torch.autocast(kind, torch.bfloat16, half)
        ).run_all()
    except Exception as error:  # out of memory, or a loss that cannot be mapped
        log.warning("unlearning one by one, the stack failed: %s", str(error).splitlines()[0])
        return {}
    outcomes = {cell.job.run_id: cell.make_result(len(cells)) for cell in cells}
    return {run_id: outcome for run_id, outcome in outcomes.items() if outcome is not None}


def prepare_cell(job: Job) -> StackedCell | None:
    """Return a job prepared for its first step; None if it runs on its own."""
    with contextlib.suppress(ValueError, RuntimeError):  # it reports the error when it runs
        context = load_with_forget_set(job)
        if (
            SequentialRequests(context).num_requests > 1
        ):  # successive requests: each starts from the previous model
            return None
        model, _ = load_original(context)
        curves: Any = CurveRecorder()
        seed = job.config["seeds"]["unlearn"]
        method, monitor, fit, request = build_run(context, seed=seed, loggers=[curves])
        reason = find_obstacle(context.engine, model, precision_of(method, context.engine))
        if reason is not None:
            log.info("unlearning one by one: %s", reason)
            return None
        course = StackedRun(method, model, request, fit)
        if (
            course.error is None and find_stack_obstacle(method) is None
        ):  # the preparation may add hooks
            return StackedCell(job, context, course, monitor, curves)
    return None


def _is_faster(cells: Sequence[StackedCell]) -> bool:
    """Return whether the stack is forced by ``stack``, or faster in a few timed steps on copies."""
    first = cells[0]
    if str(first.job.config["stack"]).lower() != "auto":
        return True
    members = [StackMember(c.run.model, c.run.request.get_all_samples(), 0) for c in cells]
    times = measure_speedup(
        members, first.run.method.batch_size, first.context.engine,
        augment=first.context.dataset.augment,
    )  # fmt: skip
    if times < MIN_SPEEDUP:
        log.info(
            "unlearning one by one: a stack of %d is only %.2f times as fast", len(cells), times
        )
    return times >= MIN_SPEEDUP
