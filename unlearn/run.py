"""The three jobs: pre-train, unlearn, evaluate. Everything is built from a job's config; no hydra here."""

import copy
import datetime
import functools
import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from torch import nn

from unlearn import environment
from unlearn.checkpoints import CheckpointCache, Trained, load_state, save_state
from unlearn.data.dataset import Dataset
from unlearn.evaluation.evaluator import Row, collapse, declared, evaluate
from unlearn.evaluation.monitor import Monitor
from unlearn.evaluation.predictions import Predictions, predict
from unlearn.job import Job
from unlearn.models.expansion import drop
from unlearn.reporting import console
from unlearn.results.record import RunRecord
from unlearn.results.store import ResultsStore
from unlearn.task import Task
from unlearn.training.engine import CollapsedError, Engine
from unlearn.training.loggers import close
from unlearn.training.pretrain import Pretraining, pretrain
from unlearn.training.unlearning import LightningFit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """Data, truth and engine of a job; the same for all of its models."""

    dataset: Dataset
    task: Task
    engine: Engine
    digest: str


@functools.lru_cache(maxsize=2)
def _dataset(node: str, build: Callable[[Any], Any]) -> Dataset:
    return build(json.loads(node)).load()


def _engine(config: dict[str, Any], image_size: int) -> Engine:
    options = dict(config["trainer"])
    auto = options["progress"] in ("auto", None)
    options["progress"] = (
        sys.stderr.isatty() if auto else str(options["progress"]).lower() == "true"
    )
    return Engine(**options, image_size=image_size)


def corrupted_count(corrupted: float, size: int) -> int:
    """Return how many of ``size`` samples to corrupt: a share below 1, else a count.

    Raises:
        ValueError: If that is none, or more than there are.
    """
    count = round(corrupted * size) if corrupted < 1 else round(corrupted)
    if not 1 <= count <= size:
        raise ValueError(
            f"corrupted must be a share in (0, 1) or a count in 1..{size} that gives at least one "
            f"sample, got {corrupted}"
        )
    return count


def prepare(job: Job, *, forget: bool) -> Setting:
    """Load the data, corrupt them and, if wanted, choose the forget set."""
    config = job.config
    dataset = _dataset(json.dumps(config["dataset"], sort_keys=True), job.build)
    engine = _engine(config, dataset.train.image.shape[-1])
    count = corrupted_count(config["corrupted"], len(dataset.train))
    corruption = job.build(config["corruption"])
    train, truth = corruption(dataset.train, count=count, seed=config["seeds"]["data"])
    digest = hashlib.sha256(
        train.label.numpy().tobytes() + truth.corrupted.numpy().tobytes()
    ).hexdigest()[:16]
    found: tuple[torch.Tensor, ...] = ()
    if forget:
        choose = job.build(config["forget_set"])
        found = choose(truth, rate=config["discovery"], seed=config["seeds"]["discovery"])
    task = Task(train=train, test=dataset.test, truth=truth, forget=found)
    return Setting(dataset, _resident(task, engine), engine, digest)


def _resident(task: Task, engine: Engine) -> Task:
    """Move the images to the GPU if they take less than half of its free memory."""
    if engine.device.type != "cuda":
        return task
    size = task.train.image.numel() + task.test.image.numel()
    if size > torch.cuda.mem_get_info()[0] // 2:
        log.info("the images stay in main memory: %.1f GB do not fit on the GPU", size / 1e9)
        return task
    return replace(task, train=task.train.to(engine.device), test=task.test.to(engine.device))


def _loggers(job: Job, folder: Path) -> list[Logger]:
    tags = {k: str(v) for k, v in job.names.items()}
    makers = [node for node in (job.config.get("logger") or {}).values() if node]
    return [job.build({**n, "folder": folder, "run_id": job.run_id, "tags": tags}) for n in makers]


def _network(job: Job, setting: Setting) -> tuple[Pretraining, nn.Module]:
    seeds = job.config["seeds"]
    recipe: Pretraining = job.build(job.config["pretraining"])
    factory = job.build(job.config["model"])
    network = recipe.network(
        factory, setting.task.train, seed=seeds["train"], mask_seed=seeds["mask"]
    )
    return recipe, network


def identity(job: Job, setting: Setting) -> dict[str, Any]:
    """Return everything that determines the original model's weights; no rate and no method."""
    config = job.config
    data = {k: v for k, v in config["dataset"].items() if k not in ("root", "cache_dir")}
    seeds = {k: config["seeds"][k] for k in ("data", "train", "mask")}
    return {
        "dataset": data,
        "corruption": config["corruption"],
        "corrupted": config["corrupted"],
        "data_digest": setting.digest,
        "model": config["model"],
        "pretraining": config["pretraining"],
        "precision": setting.engine.resolved_precision(),
        "seeds": seeds,
    }


def original(job: Job, setting: Setting) -> tuple[nn.Module, Trained, bool]:
    """Find the original model in the cache or train it.

    Returns:
        The model on the device, its notes, and whether it was cached.
    """
    recipe, network = _network(job, setting)

    def train(folder: Path) -> Trained:
        log.info("training the original model (%d epochs) ...", recipe.epochs)
        notes = pretrain(
            network,
            setting.task.train,
            recipe,
            setting.engine,
            augment=setting.dataset.augment,
            seed=job.config["seeds"]["train"],
            loggers=[CSVLogger(folder, name="curves", version="")],
            resume=folder / "resume.ckpt",
            title="training the original model",
        )
        state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        return Trained(state=state, records={}, notes=notes)

    trained, cached = CheckpointCache(Path(job.config["paths"]["checkpoints"])).get_or_train(
        identity(job, setting), train
    )
    network.load_state_dict(trained.state)
    if cached:
        log.info("original model: from the cache (trained in %.1f s)", trained.notes["seconds"])
    return setting.engine.place(network).eval(), trained, cached


def pretrain_job(job: Job) -> float | None:
    """Train the original model, or find it, and print how good it is."""
    environment.check_pair()
    setting = prepare(job, forget=False)
    if job.config["force"]:
        CheckpointCache(Path(job.config["paths"]["checkpoints"])).remove(identity(job, setting))
    model, trained, _cached = original(job, setting)
    task = setting.task
    predictions = predict(drop(model), task)
    row = evaluate(job.build(_standard_metrics()), predictions, task)
    row |= {"seconds": trained.notes["seconds"], "images_seen": trained.notes["images_seen"]}
    row["images_per_second"] = trained.notes["images_seen"] / trained.notes["seconds"]
    folder = CheckpointCache(Path(job.config["paths"]["checkpoints"])).folder(
        identity(job, setting)
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


def _describe(job: Job) -> str:
    names = job.names
    text = f"{names['dataset']}, {names['corruption']}, {names['model']}"
    if "method" in names:
        text = f"{names['method']} on {text}, discovery {job.config['discovery']}"
    return text


@dataclass
class Outcome:
    """What an unlearning left behind; ``model`` is None if the loss was lost."""

    model: nn.Module | None
    seconds: float
    images_seen: int
    notes: dict[str, Any]
    reason: str | None = None


def unlearn_once(job: Job, setting: Setting, model: nn.Module, *, seed: int) -> Outcome:
    """Run the method on its own copy of ``model``, timed without the evaluator's share."""
    method = job.build(job.config["method"])
    loggers = _loggers(job, job.folder)
    monitor = Monitor(method, setting.task, loggers)
    fit = LightningFit(
        setting.engine,
        augment=setting.dataset.augment,
        seed=seed,
        loggers=loggers,
        callbacks=[monitor],
        title=job.names["method"],
    )
    own = copy.deepcopy(model)
    started = time.perf_counter()
    try:
        healed = method.unlearn(own, setting.task.request(), fit)
    except CollapsedError as error:
        seconds = time.perf_counter() - started - monitor.seconds
        return Outcome(None, seconds, fit.images_seen, method.notes, str(error))
    finally:
        for logger in loggers:
            close(logger)
    if setting.engine.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started - monitor.seconds
    return Outcome(drop(healed).eval(), seconds, fit.images_seen, method.notes)


def retrained(job: Job, setting: Setting) -> Predictions | None:
    """Return the predictions of the retrained reference if some metric needs them; cached."""
    metrics = job.build(job.config["evaluation"])
    if not any("retrained" in declared(m).needs for m in metrics.values()):
        return None
    recipe, network = _network(job, setting)
    seed = job.config["seeds"]["train"]
    who = identity(job, setting) | {"forget": setting.task.discovered().tolist()}
    network = drop(network)

    def train(folder: Path) -> Trained:
        log.info("training the retrained reference ...")
        plain = replace(recipe, capacity=1.0, density=0.0)
        request = setting.task.request()
        notes = pretrain(
            network, request.retain, plain, setting.engine, augment=setting.dataset.augment,
            seed=seed, resume=folder / "resume.ckpt", title="retraining",
        )  # fmt: skip
        state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        return Trained(state=state, records={}, notes=notes)

    cache = CheckpointCache(Path(job.config["paths"]["checkpoints"]))
    network.load_state_dict(cache.get_or_train(who, train)[0].state)
    return predict(setting.engine.place(network).eval(), setting.task)


def unlearn_job(job: Job) -> float | None:
    """Heal the original model with one method, evaluate, record one row.

    Returns:
        healed x utility, or None if the model collapsed.
    """
    environment.check_pair()
    for node in ("method", "pretraining", "evaluation"):
        job.build(job.config[node])  # refuses wrong options before anything is trained
    setting = prepare(job, forget=True)
    model, trained, _ = original(job, setting)
    outcome = unlearn_once(job, setting, model, seed=job.config["seeds"]["unlearn"])
    metrics = job.build(job.config["evaluation"])
    row: Row = {key: None for m in metrics.values() for key in declared(m).directions}
    reason = outcome.reason
    if outcome.model is not None:
        predictions = predict(outcome.model, setting.task)
        row = evaluate(metrics, predictions, setting.task, retrained(job, setting))
        reason = collapse(row, setting.task.train.num_classes)
        if job.config["save_model"]:
            state = {
                k: v.detach().cpu().contiguous() for k, v in outcome.model.state_dict().items()
            }
            save_state(job.folder / "model.pt", state)
    row |= {"images_seen": outcome.images_seen, "original_seconds": trained.notes["seconds"]}
    row |= {f"method/{k}": v for k, v in outcome.notes.items()}
    record = RunRecord(
        run_id=job.run_id,
        step=0,
        names=dict(job.names),
        config=job.config,
        metrics=row,
        status="ok" if reason is None else "collapsed",
        reason=reason,
        seconds=outcome.seconds,
        peak_bytes=environment.peak_bytes(),
        versions=environment.versions(),
        revision=environment.revision(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    ResultsStore(Path(job.config["paths"]["results"])).write(record)
    row |= {"seconds": outcome.seconds}
    if job.brief:
        log.info("  %s", console.line(row))
    else:
        console.print_row(row, title=_describe(job))
        log.info("row, curves and healed model: %s", job.folder)
    if reason is not None:
        log.warning("the model has collapsed: %s", reason)
    return row.get("healed_utility")  # type: ignore[return-value]


def evaluate_job(job: Job) -> float | None:
    """Evaluate a checkpoint on a task, or turn all recorded rows into a table and figures."""
    if job.config["checkpoint"] is None:
        console.report(job.config)
        return None
    setting = prepare(job, forget=True)
    network = job.build(job.config["model"])(
        in_channels=setting.task.train.image.shape[1],
        image_size=setting.task.train.image.shape[-1],
        num_classes=setting.task.train.num_classes,
    )
    path = Path(job.config["checkpoint"])
    try:
        network.load_state_dict(load_state(path))
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ValueError(
            f"checkpoint {path} does not fit model={job.names['model']}: {first}"
        ) from error
    predictions = predict(setting.engine.place(network).eval(), setting.task)
    row = evaluate(job.build(job.config["evaluation"]), predictions, setting.task)
    console.print_row(row, title=f"{path}: {_describe(job)}")
    return row.get("healed_utility")  # type: ignore[return-value]
