"""The three jobs: pre-train, unlearn, evaluate. Everything is built from a job's config."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning.pytorch.loggers import Logger
from torch import nn

from unlearn.core import environment
from unlearn.core.job import Job
from unlearn.data.task import Task
from unlearn.evaluation.predictions import Predictions, predict
from unlearn.models.expansion.expanded import drop
from unlearn.pipeline import method_selection, reference_models, sequential_requests
from unlearn.pipeline.context import method_of, prepare
from unlearn.pipeline.forget_set import waits, with_forget_set
from unlearn.pipeline.run_method import unlearn_once
from unlearn.pipeline.run_record import _describe, _needed, record_of
from unlearn.pipeline.sample_scores import features
from unlearn.pipeline.trained_models import original
from unlearn.pipeline.user_model import check_method, check_original, leave, leave_lists
from unlearn.reporting import run_summary
from unlearn.reporting.tracking import run_tracking
from unlearn.storage.record import RunRecord
from unlearn.storage.results_store import ResultsStore

log = logging.getLogger(__name__)


def unlearn_job(job: Job) -> float | None:
    """Heal the original model with one method, evaluate, record one row.

    Returns:
        healed x utility, or None if the model collapsed.
    """
    environment.check_pair()
    method = method_of(job)  # refuses wrong options before anything is trained
    for node in ("pretraining", "forget_set"):
        job.node(node)
    reference_models.options(job)
    sequential_requests.check(job)
    job, facts = method_selection.settled(job, unlearn_once)
    started = time.perf_counter()
    context = prepare(job, forget=False)
    late = waits(job)
    context = context if late else with_forget_set(context)  # a wrong list costs no training
    check_method(context, method)
    training = time.perf_counter()
    model, trained = original(context)
    started += time.perf_counter() - training  # that is the original model's time
    context = with_forget_set(context) if late else context
    reference_models.enough(context)
    given = job.config["checkpoint"] is not None
    if given or _needed(job, "original"):
        context = replace(context, before=predict(drop(model), context.task))
    if given and context.before is not None:
        check_original(context, context.before)
    facts |= {"original_seconds": trained.notes["seconds"], **context.facts}
    if _needed(job, "embedding"):
        context = replace(context, embedding=features(context))
    records: list[RunRecord] = []
    row = sequential_requests.Requests(context)
    with run_tracking.tracked(job) as loggers:
        for step in range(row.count):
            context = now = row.at(step, context, model)
            seed = job.config["seeds"]["unlearn"]
            outcome = job.ready or unlearn_once(now, model, seed=seed, loggers=loggers)
            outcome.replay(loggers)
            if outcome.mask is not None:
                outcome.mask.save(job.folder / "mask.pt")
            said = None if outcome.model is None else predict(outcome.model, now.task)
            records.append(record_of(now, outcome, said, facts | now.facts, started))
            if outcome.model is not None and said is not None:
                leave(now, records[-1], outcome.model, said)
            _track(loggers, records[-1], now.task, model, said)
            _tell(job, records[-1], row.count)
            if outcome.model is None or records[-1].status != "ok":
                break  # there is nothing to go on from
            model, started = outcome.model, time.perf_counter()
    row.end(context, None if records[-1].reason else model, job.folder)
    leave_lists(job.folder, context)
    for record in reversed(records):  # the first step's row says that the run is done
        ResultsStore(Path(job.config["paths"]["results"])).write(record)
    return records[-1].metrics.get("healed_utility")  # type: ignore[return-value]


def _tell(job: Job, record: RunRecord, steps: int) -> None:
    row = {**record.metrics, "seconds": record.seconds}
    which = f", request {record.step + 1} of {steps}" if steps > 1 else ""
    if job.brief:
        log.info("  %s%s", run_summary.line(row), which)
    else:
        run_summary.print_row(row, title=_describe(job) + which)
        log.info("row, curves and healed model: %s", job.folder)
    if record.reason is not None:
        log.warning("the model has collapsed: %s", record.reason)


def _track(
    loggers: Sequence[Logger],
    record: RunRecord,
    task: Task,
    before: nn.Module,
    after: Predictions | None,
) -> None:
    """Hand the row and what the models say to the loggers that show such things."""
    if run_tracking.watched(loggers):
        run_tracking.finish(loggers, record, task, predict(before, task), after)
