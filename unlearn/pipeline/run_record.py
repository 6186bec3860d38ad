"""Evaluate an unlearned model and make its row."""

import datetime
import time
from dataclasses import replace

from unlearn.core import environment
from unlearn.core.errors import CollapsedError
from unlearn.core.job import Job, found_by
from unlearn.evaluation.evaluator import Row, collapse, declared, evaluate
from unlearn.evaluation.predictions import Predictions
from unlearn.pipeline import reference_models
from unlearn.pipeline.context import RunContext
from unlearn.pipeline.run_method import Outcome, unlearn_once
from unlearn.pipeline.trained_models import retrained
from unlearn.storage.record import RunRecord


def _names(job: Job) -> dict[str, str]:
    """Return what the choices are called; an oracle is marked as such wherever its row goes."""
    names = dict(job.names)
    inner = job.config["model"].get("name") or job.config["model"].get("path")
    names["model"] += f"({inner})" if inner else ""
    method = job.config["method"]
    if "mode" in method and "base" in method:  # it runs other methods
        base = str(method["base"]["_target_"]).split(".")[-2]
        names["method"] += f"({base} {method['mode']})"
    inside = [job.config.get(key) for key in ("localization_name", "budget")]
    if any(inside):
        names["method"] += f"({' '.join(str(part) for part in inside if part is not None)})"
    if job.config["oracle"] and "ideal" not in names["method"].lower():
        names["method"] += " (IDEAL)"
    return names


def _describe(job: Job) -> str:
    names = job.names
    text = f"{names['dataset']}, {names['corruption']}, {names['model']}"
    if "method" in names:
        text = f"{names['method']} on {text}, discovery {found_by(job.config)}"
    return text


def evaluate_all(context: RunContext, predictions: Predictions) -> Row:
    """Return the columns of the job's metrics; without its reference a metric has failed."""
    metrics = context.job.node("evaluation")
    try:
        return evaluate(metrics, predictions, context.task, retrained(context))
    except CollapsedError as error:
        row = evaluate(metrics, predictions, context.task)
        waiting = [n for n, m in metrics.items() if "retrained" in declared(m).needs]
        return row | {f"failed/{n}": f"no retrained reference: {error}" for n in waiting}


def record_of(
    context: RunContext,
    outcome: Outcome,
    said: Predictions | None,
    facts: Row,
    started: float,
) -> RunRecord:
    """Evaluate what an unlearning left behind; return its row."""
    metrics = context.job.node("evaluation")
    row: Row = {key: None for m in metrics.values() for key in declared(m).directions}
    reason = outcome.reason
    if outcome.model is not None and said is not None:
        more = reference_models.further(context, outcome.model, unlearn_once)
        own = {"embedding": context.embedding, "original": context.before}
        predictions = replace(said, seconds=outcome.seconds, **own, **more)
        row = evaluate_all(context, predictions)
        reason = collapse(row, context.task.train.num_classes)
    row |= {"images_seen": outcome.images_seen} | facts
    row["wall_seconds"] = time.perf_counter() - started
    row |= {f"method/{k}": v for k, v in outcome.notes.items()}
    return RunRecord(
        run_id=context.job.run_id,
        step=context.task.step,
        names=_names(context.job),
        config=context.job.config,
        metrics=row,
        status="ok" if reason is None else "collapsed",
        reason=reason,
        seconds=outcome.seconds,
        peak_bytes=outcome.peak_bytes,
        versions=environment.versions(),
        revision=environment.revision(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _needed(job: Job, need: str) -> bool:
    """Say whether some metric of the job needs something."""
    metrics = job.node("evaluation")
    return any(need in declared(m).needs for m in metrics.values())
