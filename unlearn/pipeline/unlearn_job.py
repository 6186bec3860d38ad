"""The job of unlearn.py: find or train the original model, unlearn, evaluate, record."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from torch import nn

from unlearn.core import environment
from unlearn.core.job import Job
from unlearn.data.task import Task
from unlearn.evaluation.predictions import REFERENCE_NEEDS, Predictions, predict_task
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.pipeline import sequential_requests
from unlearn.pipeline.clean_only import check_clean_only, measure_clean_only
from unlearn.pipeline.context import RunContext, build_method, load_context
from unlearn.pipeline.forget_set import add_forget_set, needs_original_model
from unlearn.pipeline.healed_models import publish_model
from unlearn.pipeline.original_agreement import check_agreement
from unlearn.pipeline.run_method import UnlearningResult, run_method
from unlearn.pipeline.run_record import describe_run, is_needed, make_record
from unlearn.pipeline.sample_scores import compute_features
from unlearn.pipeline.spread_run import is_spread
from unlearn.pipeline.trained_models import cpu_state, load_original
from unlearn.pipeline.user_model import (
    check_method,
    export_forget_lists,
    export_model,
    warn_lost_classes,
)
from unlearn.reporting import run_summary
from unlearn.reporting.tracking import run_tracking
from unlearn.storage.model_card import read_card
from unlearn.storage.record import RunRecord
from unlearn.storage.results_store import ResultsStore

log = logging.getLogger(__name__)


def unlearn_job(job: Job) -> float | None:
    """Heal the original model with one method, evaluate, record one row.

    Returns:
        healed x utility, or None if the model collapsed.
    """
    environment.check_torchvision()
    method = build_method(job)  # checks options before any training
    is_spread(job, method)
    compares = _check_options(job)
    job, facts = _choose_methods(job)
    started = time.perf_counter()
    context = load_context(job, forget=False)
    late = needs_original_model(job)
    context = context if late else add_forget_set(context)  # checks the list before any training
    check_method(context, method)
    training = time.perf_counter()
    model, trained = load_original(context)
    measured = measure_clean_only(context, model) if job.config.get("clean_only") else {}
    started += time.perf_counter() - training  # recorded with the original model
    context = add_forget_set(context) if late else context
    if compares:
        _check_references(job, context)
    given = job.config["checkpoint"] is not None
    if given or is_needed(job, "original"):
        context = replace(
            context, original_predictions=predict_task(remove_extra_channels(model), context.task)
        )
    if given and context.original_predictions is not None:
        check_agreement(context, model, context.original_predictions)
    facts |= {"original_seconds": trained.notes["seconds"], **context.forget_set_facts, **measured}
    if is_needed(job, "embedding"):
        context = replace(context, embedding=compute_features(context))
    steps: list[_Step] = []
    row = sequential_requests.SequentialRequests(context)
    with run_tracking.open_loggers(job) as loggers:
        for step in range(row.num_requests):
            context = now = row.select_request(step, context, model)
            seed = job.config["seeds"]["unlearn"]
            outcome = job.stacked_result or run_method(now, model, seed=seed, loggers=loggers)
            outcome.replay_curves(loggers)
            if outcome.mask is not None:
                outcome.mask.save(job.folder / "mask.pt")
            said = _predict_result(outcome, now.task)
            record = make_record(now, outcome, said, facts | now.forget_set_facts, started)
            if outcome.model is not None and said is not None:
                export_model(now, record, outcome.model, said)
            steps.append(_Step(record, now, model, said))
            if outcome.model is None or record.status != "ok":
                break  # no model to continue from
            model, started = outcome.model, time.perf_counter()
        row.write_histograms(context, None if steps[-1].record.reason else model, job.folder)
        export_forget_lists(job.folder, context)
        _record_steps(job, steps, loggers)
        saved = job.config["save_model"] and steps[-1].record.status == "ok"
        if saved:
            run_tracking.log_healed_model(loggers, job.config, job.folder)
        if saved and job.config.get("hub"):
            publish_model(job.config, read_card(job.folder), cpu_state(model))
    return steps[-1].record.metrics.get("healed_utility")  # type: ignore[return-value]


def _check_options(job: Job) -> bool:
    """Check the options before any training; return whether the model is compared with references."""
    check_clean_only(job)
    for node in ("pretraining", "forget_set"):
        job.node(node)
    compares = is_needed(job, *REFERENCE_NEEDS)
    if compares:
        _check_references(job)
    sequential_requests.check_requests(job)
    return compares


@dataclass(frozen=True)
class _Step:
    """A request that was unlearned: its row, context, model before and predictions after."""

    record: RunRecord
    context: RunContext
    before: nn.Module
    after: Predictions | None


def _predict_result(outcome: UnlearningResult, task: Task) -> Predictions | None:
    """Return the predictions of an unlearned model; None if there is no model."""
    if outcome.model is None or outcome.predictions is not None:
        return outcome.predictions
    return predict_task(outcome.model, task)


def _record_steps(job: Job, steps: Sequence[_Step], loggers: Sequence[Logger]) -> None:
    """Record the rows, then log and print them: lost output does not lose a row."""
    for step in reversed(steps):  # the first row marks the run as done, so it is written last
        ResultsStore(Path(job.config["paths"]["results"])).write(step.record)
    for step in steps:
        _log_record(loggers, step)
        _print_record(job, step.record, len(steps))
        if step.after is not None:
            warn_lost_classes(step.context, step.after)


def _check_references(job: Job, context: RunContext | None = None) -> None:
    """Check that the reference models of the metrics are available; see ``reference_models``."""
    from unlearn.pipeline import reference_models

    if context is None:
        reference_models.reference_options(job)
    else:
        reference_models.check_lira_coverage(context)


def _choose_methods(job: Job) -> tuple[Job, dict[str, Any]]:
    """Return the job with the methods that ``method.mode=auto`` selects, and the selection."""
    if job.config["method"].get("mode") != "auto" and job.config.get("auto_methods") is None:
        return job, {}
    from unlearn.pipeline.method_selection import choose_methods

    return choose_methods(job, run_method)


def _print_record(job: Job, record: RunRecord, steps: int) -> None:
    row = {**record.metrics, "seconds": record.seconds}
    which = f", request {record.step + 1} of {steps}" if steps > 1 else ""
    if job.brief:
        log.info("  %s%s", run_summary.format_headline(row), which)
    else:
        run_summary.print_row(row, title=describe_run(job) + which)
        log.info("results and healed model: %s", job.folder)
    if record.reason is not None:
        log.warning("the model collapsed: %s", record.reason)


def _log_record(loggers: Sequence[Logger], step: _Step) -> None:
    """Log the row and the models' predictions to the loggers that support it."""
    record = step.record
    row = {**record.metrics, "seconds": record.seconds, "status": record.status}
    run_tracking.log_numbers(loggers, row, record.step)
    if run_tracking.get_wandb_runs(loggers):
        task = step.context.task
        before = predict_task(step.before, task)
        run_tracking.log_result(loggers, record, task, before, step.after)
