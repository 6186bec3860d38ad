"""The three jobs: pre-train, unlearn, evaluate. Everything is built from a job's config."""

import datetime
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from torch import nn

from unlearn import choosing, environment, references, sequence
from unlearn.diagnose_job import diagnose_job
from unlearn.evaluation.evaluator import Row, collapse, declared, evaluate
from unlearn.evaluation.predictions import Predictions, predict
from unlearn.given import fit
from unlearn.healing import check_method, check_original, leave, leave_lists
from unlearn.job import Job, found_by
from unlearn.judging import regularity
from unlearn.models.expansion import drop
from unlearn.once import Outcome, unlearn_once
from unlearn.originals import cache, original, retrained
from unlearn.reporting import console, dashboard, tracking, wandb
from unlearn.results.record import RunRecord
from unlearn.results.store import ResultsStore
from unlearn.score_job import score_job
from unlearn.scoring import features, prepared, waits
from unlearn.setting import Setting, identity, method_of, prepare
from unlearn.task import Task
from unlearn.training.engine import CollapsedError

log = logging.getLogger(__name__)


def pretrain_job(job: Job) -> float | None:
    """Train the original model, or find it, and print how good it is."""
    environment.check_pair()
    setting = prepare(job, forget=False)
    if job.config["force"]:
        cache(job).remove(identity(job, setting))
    folder = cache(job).folder(identity(job, setting))
    with tracking.tracked(job, but=("csv",)) as loggers:  # the curves are beside the model
        model, trained = original(job, setting)
        task = setting.task
        predictions = predict(drop(model), task)
        row = evaluate(job.build(_standard_metrics()), predictions, task)
        row |= {"seconds": trained.notes["seconds"], "images_seen": trained.notes["images_seen"]}
        row["images_per_second"] = trained.notes["images_seen"] / trained.notes["seconds"]
        tracking.curves(loggers, folder / "curves" / "metrics.csv")
        tracking.original(
            loggers, {**row, **job.names, "seed": job.config["seed"]}, task, predictions
        )
    (job.folder / "training.json").write_text(
        json.dumps({"checkpoint": str(folder)} | row, indent=1)
    )
    console.print_row(row, title=f"{_describe(job)}: original model in {folder}")
    return row.get("test/accuracy")  # type: ignore[return-value]


def _standard_metrics() -> dict[str, Any]:
    names = ("headline", "test", "attack")
    base = "unlearn.evaluation.metrics"
    return {n: {"_target_": f"{base}.{n}", "_partial_": True} for n in names}


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


def evaluate_all(job: Job, setting: Setting, predictions: Predictions) -> Row:
    """Return the columns of the job's metrics; without its reference a metric has failed."""
    metrics = job.build(job.config["evaluation"])
    try:
        return evaluate(metrics, predictions, setting.task, retrained(job, setting))
    except CollapsedError as error:
        row = evaluate(metrics, predictions, setting.task)
        waiting = [n for n, m in metrics.items() if "retrained" in declared(m).needs]
        return row | {f"failed/{n}": f"no retrained reference: {error}" for n in waiting}


def unlearn_job(job: Job) -> float | None:
    """Heal the original model with one method, evaluate, record one row.

    Returns:
        healed x utility, or None if the model collapsed.
    """
    environment.check_pair()
    method = method_of(job)  # refuses wrong options before anything is trained
    for node in ("pretraining", "forget_set"):
        job.build(job.config[node])
    references.options(job)
    sequence.check(job)
    job, facts = choosing.settled(job, unlearn_once)
    started = time.perf_counter()
    setting = prepare(job, forget=False)
    late = waits(job)
    setting = setting if late else prepared(job, setting)  # a wrong list costs no training
    check_method(job, setting, method)
    training = time.perf_counter()
    model, trained = original(job, setting)
    started += time.perf_counter() - training  # that is the original model's time
    setting = prepared(job, setting) if late else setting
    references.enough(job, setting)
    given = job.config["checkpoint"] is not None
    if given or _needed(job, "original"):
        setting = replace(setting, before=predict(drop(model), setting.task))
    if given and setting.before is not None:
        check_original(job, setting, setting.before)
    facts |= {"original_seconds": trained.notes["seconds"], **setting.facts}
    if _needed(job, "embedding"):
        setting = replace(setting, embedding=features(job, setting))
    records: list[RunRecord] = []
    row = sequence.Requests(job, setting)
    with tracking.tracked(job) as loggers:
        for step in range(row.count):
            setting = now = row.at(step, setting, model)
            seed = job.config["seeds"]["unlearn"]
            outcome = job.ready or unlearn_once(job, now, model, seed=seed, loggers=loggers)
            outcome.replay(loggers)
            if outcome.mask is not None:
                outcome.mask.save(job.folder / "mask.pt")
            said = None if outcome.model is None else predict(outcome.model, now.task)
            records.append(record_of(job, now, outcome, said, facts | now.facts, started))
            if outcome.model is not None and said is not None:
                leave(job, now, records[-1], outcome.model, said)
            _track(loggers, records[-1], now.task, model, said)
            _tell(job, records[-1], row.count)
            if outcome.model is None or records[-1].status != "ok":
                break  # there is nothing to go on from
            model, started = outcome.model, time.perf_counter()
    row.end(setting, None if records[-1].reason else model, job.folder)
    leave_lists(job.folder, setting)
    for record in reversed(records):  # the first step's row says that the run is done
        ResultsStore(Path(job.config["paths"]["results"])).write(record)
    return records[-1].metrics.get("healed_utility")  # type: ignore[return-value]


def record_of(
    job: Job,
    setting: Setting,
    outcome: Outcome,
    said: Predictions | None,
    facts: Row,
    started: float,
) -> RunRecord:
    """Evaluate what an unlearning left behind; return its row."""
    metrics = job.build(job.config["evaluation"])
    row: Row = {key: None for m in metrics.values() for key in declared(m).directions}
    reason = outcome.reason
    if outcome.model is not None and said is not None:
        more = references.further(job, setting, outcome.model, unlearn_once)
        own = {"embedding": setting.embedding, "original": setting.before}
        predictions = replace(said, seconds=outcome.seconds, **own, **more)
        row = evaluate_all(job, setting, predictions)
        reason = collapse(row, setting.task.train.num_classes)
    row |= {"images_seen": outcome.images_seen} | facts
    row["wall_seconds"] = time.perf_counter() - started
    row |= {f"method/{k}": v for k, v in outcome.notes.items()}
    return RunRecord(
        run_id=job.run_id,
        step=setting.task.step,
        names=_names(job),
        config=job.config,
        metrics=row,
        status="ok" if reason is None else "collapsed",
        reason=reason,
        seconds=outcome.seconds,
        peak_bytes=outcome.peak_bytes,
        versions=environment.versions(),
        revision=environment.revision(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _tell(job: Job, record: RunRecord, steps: int) -> None:
    row = {**record.metrics, "seconds": record.seconds}
    which = f", request {record.step + 1} of {steps}" if steps > 1 else ""
    if job.brief:
        log.info("  %s%s", console.line(row), which)
    else:
        console.print_row(row, title=_describe(job) + which)
        log.info("row, curves and healed model: %s", job.folder)
    if record.reason is not None:
        log.warning("the model has collapsed: %s", record.reason)


def _needed(job: Job, need: str) -> bool:
    """Say whether some metric of the job needs something."""
    metrics = job.build(job.config["evaluation"])
    return any(need in declared(m).needs for m in metrics.values())


def _track(
    loggers: Sequence[Logger],
    record: RunRecord,
    task: Task,
    before: nn.Module,
    after: Predictions | None,
) -> None:
    """Hand the row and what the models say to the loggers that show such things."""
    if tracking.watched(loggers):
        tracking.finish(loggers, record, task, predict(before, task), after)


def evaluate_job(job: Job) -> float | None:
    """Evaluate a checkpoint on a task, or turn all recorded rows into a table and figures."""
    if job.config["scores"] is not None:
        return score_job(job)
    if job.config["diagnose"] is not None:
        return diagnose_job(job)
    if job.config["dashboard"]:
        options = wandb.target(job.config["logger"])
        dashboard.publish(options, job.config["where"], Path(job.config["paths"]["reports"]))
        return None
    if job.config["advise"]:
        console.advise(job.config, regularity(job))
        return None
    if job.config["checkpoint"] is None:
        console.report(job.config)
        return None
    setting = prepared(job)
    network = job.build(job.config["model"])(
        in_channels=setting.task.train.image.shape[1],
        image_size=setting.task.train.image.shape[-1],
        num_classes=setting.task.train.num_classes,
    )
    path = Path(job.config["checkpoint"])
    fit(path, network, f"model={job.names['model']}").load_into(network)
    network = setting.engine.place(network).eval()
    predictions = replace(
        predict(network, setting.task), **references.further(job, setting, network, None)
    )
    row = evaluate_all(job, setting, predictions)
    console.print_row(row, title=f"{path}: {_describe(job)}")
    return row.get("healed_utility")  # type: ignore[return-value]
