"""Evaluate an unlearned model and make its row."""

import datetime
import time
from dataclasses import replace
from typing import Any

from torch import nn

from unlearn.core import environment
from unlearn.core.errors import CollapsedError
from unlearn.core.job import Job, chosen_option, describe_discovery
from unlearn.evaluation.class_losses import compare_classes, summarize_worst_class
from unlearn.evaluation.evaluator import Row, evaluate_metrics, find_collapse, get_metric
from unlearn.evaluation.predictions import REFERENCE_NEEDS, Predictions
from unlearn.evaluation.recovery import CEILING, RECOVERED, compute_recovered
from unlearn.pipeline.context import RunContext
from unlearn.pipeline.run_method import UnlearningResult, run_method
from unlearn.pipeline.trained_models import predict_retrained
from unlearn.pipeline.trusted_set import describe_access, describe_trusted_set
from unlearn.storage.record import RunRecord


def _display_names(job: Job) -> dict[str, str]:
    """Return the display names of the choices; an oracle is marked as such."""
    names = dict(job.names)
    inner = job.config["model"].get("name") or job.config["model"].get("path")
    names["model"] += f"({inner})" if inner else ""
    method = job.config["method"]
    if "mode" in method and "base" in method:  # it runs other methods
        names["method"] += f"({chosen_option(job.config, 'base')} {method['mode']})"
    needs = getattr(job.node("method"), "needs_trusted", False)
    if needs and not getattr(type(job.node("method")), "needs_trusted", False):
        names["method"] += "(trusted)"  # it can do without
    inside = [job.config.get(key) for key in ("localization_name", "budget")]
    if any(inside):
        names["method"] += f"({' '.join(str(part) for part in inside if part is not None)})"
    if job.config["oracle"] and "ideal" not in names["method"].lower():
        names["method"] += " (IDEAL)"
    return names


def _collect_facts(context: RunContext) -> dict[str, Any]:
    """Return the facts of method and corruption that tables read."""
    job, method = context.job, context.job.node("method")
    return {
        "role": "upper bound" if job.config["oracle"] else method.role,
        "uses_forget_set": method.uses_forget_set,
        "regularity": job.node("corruption").regularity,
        "access": describe_access(method),
    }


def describe_run(job: Job) -> str:
    """Return data, corruption, network and, for an unlearning, method and discovery rate."""
    names = job.names
    text = f"{names['dataset']}, {names['corruption']}, {names['model']}"
    if "method" in names:
        text = f"{names['method']} on {text}, discovery {describe_discovery(job.config)}"
    return text


def evaluate_run(context: RunContext, predictions: Predictions) -> Row:
    """Return the columns of the job's metrics; a metric without its reference counts as failed."""
    metrics = context.job.node("evaluation")
    try:
        return evaluate_metrics(metrics, predictions, context.task, predict_retrained(context))
    except CollapsedError as error:
        row = evaluate_metrics(metrics, predictions, context.task)
        waiting = [n for n, m in metrics.items() if "retrained" in get_metric(m).needs]
        return row | {f"failed/{n}": f"no retrained reference: {error}" for n in waiting}


def make_record(
    context: RunContext,
    outcome: UnlearningResult,
    said: Predictions | None,
    facts: Row,
    started: float,
) -> RunRecord:
    """Evaluate the result of an unlearning; return its row."""
    metrics = context.job.node("evaluation")
    row: Row = {key: None for m in metrics.values() for key in get_metric(m).directions}
    reason = outcome.reason
    if outcome.model is not None and said is not None:
        more = collect_references(context, outcome.model)
        own = {"embedding": context.embedding, "original": context.original_predictions}
        predictions = replace(said, seconds=outcome.seconds, **own, **more)
        row = evaluate_run(context, predictions) | _compare_classes(context, said)
        reason = find_collapse(row, context.task.train.num_classes)
    row |= {"images_seen": outcome.images_seen} | facts
    if CEILING in row:
        row[RECOVERED] = compute_recovered(row, row.get("healed"))
    row["wall_seconds"] = time.perf_counter() - started
    row |= describe_trusted_set(context)
    row |= {k if k.startswith("auto/") else f"method/{k}": v for k, v in outcome.notes.items()}
    return RunRecord(
        run_id=context.job.run_id,
        step=context.task.step,
        names=_display_names(context.job),
        config=context.job.config,
        metrics=row,
        status="ok" if reason is None else "collapsed",
        reason=reason,
        seconds=outcome.seconds,
        peak_bytes=outcome.peak_bytes,
        versions=environment.collect_versions(),
        revision=environment.find_revision(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=environment.describe_machine(
            context.engine.device.type, str(context.engine.resolved_precision())
        ),
        data_digest=context.dataset_digest,
        **_collect_facts(context),
    )


def _compare_classes(context: RunContext, said: Predictions) -> Row:
    """Return the columns about the class that lost most, if the original's predictions are known."""
    before = context.original_predictions
    if before is None:
        return {}
    losses = compare_classes(before, said, context.task, context.dataset.class_names)
    return dict(summarize_worst_class(losses))


def collect_references(context: RunContext, model: nn.Module) -> dict[str, Any]:
    """Return the reference models of the job's metrics, as fields of ``Predictions``."""
    if not is_needed(context.job, *REFERENCE_NEEDS):
        return {}
    from unlearn.pipeline import reference_models

    return reference_models.collect_references(context, model, run_method)


def is_needed(job: Job, *needs: str) -> bool:
    """Return whether a metric of the job needs one of the inputs."""
    metrics = job.node("evaluation").values()
    return any(need in get_metric(metric).needs for metric in metrics for need in needs)
