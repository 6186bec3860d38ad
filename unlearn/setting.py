"""What a job works on: data, truth, engine, and the models that are trained once and kept."""

import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearn.checkpoints import CheckpointCache, Trained, epochs_done
from unlearn.core import ImageSet
from unlearn.data.dataset import Dataset
from unlearn.detection.base import Detector
from unlearn.discovery import with_false_alarms
from unlearn.evaluation.evaluator import declared
from unlearn.evaluation.predictions import Predictions, predict
from unlearn.given import Given, fit
from unlearn.job import Job, original_identity
from unlearn.memorization.base import Recorder
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.localized import Localized
from unlearn.models.expansion import drop
from unlearn.task import Task, Truth
from unlearn.training.engine import Engine
from unlearn.training.loggers import continued
from unlearn.training.pretrain import Pretraining, pretrain

log = logging.getLogger(__name__)

RESUME = "resume.ckpt"  # in a model's folder while it is trained alone


@dataclass(frozen=True)
class Setting:
    """Data, truth and engine of a job; the same for all of its models.

    Attributes:
        dataset: The clean data.
        task: What is to be unlearned.
        engine: How to compute.
        digest: Hash of the training set as received.
        facts: Of the forget set, for the row.
        embedding: Of the training set by the original model, (N, E), if a metric needs it.
        before: What the original model says, if a metric or a report needs it.
    """

    dataset: Dataset
    task: Task
    engine: Engine
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)
    embedding: torch.Tensor | None = None
    before: Predictions | None = None


@functools.lru_cache(maxsize=2)
def _dataset(node: str, build: Callable[[Any], Any]) -> tuple[Dataset, bytes]:
    """Return a data set and the hash of its training images, once for all jobs of a process."""
    dataset: Dataset = build(json.loads(node)).load()
    return dataset, hashlib.sha256(dataset.train.image.numpy().tobytes()).digest()


def engine_of(config: dict[str, Any], image_size: int) -> Engine:
    """Return how to compute.

    Args:
        config: Of the job.
        image_size: Height and width in pixels.

    Raises:
        ValueError: If a GPU is wanted that torch does not see.
    """
    options = dict(config["trainer"])
    if options["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator is gpu, but torch sees none; use auto or cpu")
    threads = options.pop("threads")
    if threads is not None:
        torch.set_num_threads(threads)
    auto = options["progress"] in ("auto", None)
    options["progress"] = (
        sys.stderr.isatty() if auto else str(options["progress"]).lower() == "true"
    )
    return Engine(**options, image_size=image_size)


def corrupted_count(corrupted: float, size: int, multiple: int = 1) -> int:
    """Return how many of ``size`` samples to corrupt: a share below 1, else a count.

    Args:
        corrupted: Share in (0, 1), rounded to the nearest multiple; or a count.
        size: Number of samples.
        multiple: What a corruption takes at a time, 2 if it exchanges labels.

    Raises:
        ValueError: If that is none, or more than there are.
    """
    count = round(corrupted)
    if corrupted < 1:
        count = round(corrupted * size / multiple) * multiple
    if not 1 <= count <= size:
        raise ValueError(
            f"corrupted must be a share in (0, 1) or a count in 1..{size} that gives at least one "
            f"sample, got {corrupted}"
        )
    return count


def prepare(job: Job, *, forget: bool) -> Setting:
    """Load the data, corrupt them and, if wanted, choose the forget set."""
    config = job.config
    dataset, pixels = _dataset(json.dumps(config["dataset"], sort_keys=True), job.build)
    if config.get("class_order") is not None:
        dataset = dataset.in_order(config["class_order"])
    adopt = (
        getattr(job.build(config["forget_set"]), "adopt", None) if "forget_set" in config else None
    )
    if adopt is not None:
        dataset = adopt(dataset)
    if config.get("validation") is not None:
        dataset = dataset.hold_out(config["validation"])
    engine = engine_of(config, dataset.train.image.shape[-1])
    corruption = job.build(config["corruption"])
    multiple = getattr(corruption, "multiple", 1)
    count = corrupted_count(config["corrupted"], len(dataset.train), multiple)
    train, truth = corruption(dataset.train, count=count, seed=config["seeds"]["data"])
    digest = hashlib.sha256(
        pixels + train.label.numpy().tobytes() + truth.corrupted.numpy().tobytes()
    ).hexdigest()[:16]
    found: tuple[torch.Tensor, ...] = ()
    if forget:
        choose = job.build(config["forget_set"])
        if isinstance(choose, Detector):
            raise ValueError("options are tuned where discovery is simulated: discovery=0.5")
        found = choose(truth, rate=config["discovery"], seed=config["seeds"]["discovery"])
        found = alarmed(config, found, truth)
    task = Task(train=train, test=dataset.test, truth=truth, forget=found)
    return Setting(dataset, _resident(task, engine), engine, digest)


def alarmed(
    config: Mapping[str, Any], found: tuple[torch.Tensor, ...], truth: Truth
) -> tuple[torch.Tensor, ...]:
    """Return requests with the false alarms that discovery_precision asks for."""
    precision, seed = config.get("discovery_precision"), config["seeds"]["discovery"]
    if precision is None:
        return found
    return tuple(with_false_alarms(part, truth.corrupted, precision, seed) for part in found)


def _resident(task: Task, engine: Engine) -> Task:
    """Move the images to the GPU if they take less than half of its free memory."""
    if engine.device.type != "cuda":
        return task
    size = task.train.image.numel() + task.test.image.numel()
    if not engine.fits(size):
        log.info("the images stay in main memory: %.1f GB do not fit on the GPU", size / 1e9)
        return task
    return replace(task, train=task.train.to(engine.device), test=task.test.to(engine.device))


def _network(job: Job, setting: Setting) -> tuple[Pretraining, nn.Module]:
    seeds = job.config["seeds"]
    recipe: Pretraining = job.build(job.config["pretraining"])
    factory = job.build(job.config["model"])
    network = recipe.network(
        factory, setting.task.train, seed=seeds["train"], mask_seed=seeds["mask"]
    )
    return recipe, network


def network_of(job: Job, setting: Setting) -> nn.Module:
    """Return the network that the job works on, with fresh weights."""
    return _network(job, setting)[1]


def method_of(job: Job, node: Any = None) -> UnlearningMethod:
    """Return the job's method, within its localization if it has one.

    Args:
        job: The job.
        node: Another config node of a method; None: the job's own.

    Raises:
        ValueError: If the method brings its own, or there is a budget and none to spend it.
    """
    config = job.config
    method: Any = job.build(config["method"] if node is None else node)
    options: dict[str, Any] = {
        key: config.get(f"mask_{key}") for key in ("batch_norm", "head", "trainable")
    }
    budget, inside = config.get("budget"), isinstance(method, Localized)
    if config.get("localization") is None:
        if not inside and (budget is not None or any(options.values())):
            raise ValueError("budget and mask_* need a localization, such as localization=salloc")
        return method
    if inside:
        name = type(method).__name__
        raise ValueError(f"{name} brings its own localization; method=rft takes any other")
    if not isinstance(method, UnlearningMethod):
        raise ValueError(f"{type(method).__name__} runs other methods; only those can be localized")
    localizer = job.build(config["localization"])
    options["batch_norm"] = options["batch_norm"] or "update"
    return Localized(method, localizer=localizer, budget=budget, **options)


def identity(job: Job, setting: Setting) -> dict[str, Any]:
    """Return everything that determines the original model's weights; no rate and no method."""
    found = {"data_digest": setting.digest, "precision": setting.engine.resolved_precision()}
    return original_identity(job.config) | found


def cache(job: Job) -> CheckpointCache:
    """Return the cache of trained models."""
    return CheckpointCache(Path(job.config["paths"]["checkpoints"]))


@dataclass(frozen=True)
class Training:
    """A model of the cache, there or to be trained.

    Attributes:
        who: Everything that determines its weights.
        network: With fresh weights.
        data: What it learns from.
        recipe: How.
        seed: Of order and augmentation.
        title: What is said of it.
        recorders: Watch it.
    """

    who: dict[str, Any]
    network: nn.Module
    data: ImageSet
    recipe: Pretraining
    seed: int
    title: str
    recorders: Sequence[Recorder] = ()


def keep_trained(job: Job, setting: Setting, new: Training) -> tuple[Trained, bool]:
    """Fill the network from the cache, or train it and keep it with what is recorded."""

    def train(folder: Path) -> Trained:
        resume = folder / RESUME
        done = epochs_done(resume)
        after = f", going on after epoch {done}" if done else ""
        log.info("%s (%d epochs%s) ...", new.title, new.recipe.epochs, after)
        notes = pretrain(
            new.network, new.data, new.recipe, setting.engine,
            augment=setting.dataset.augment,
            seed=new.seed,
            loggers=[continued(folder, done)],
            recorders=new.recorders,
            resume=resume,
            title=new.title,
        )  # fmt: skip
        records = {k: v for r in new.recorders for k, v in r.records().items()}
        return Trained(state=cpu_state(new.network), records=records, notes=notes)

    trained, cached = cache(job).get_or_train(new.who, train)
    new.network.load_state_dict(trained.state)
    setting.engine.place(new.network).eval()
    return trained, cached


def cpu_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers on the CPU, in plain memory layout."""
    return {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}


def training_of_original(job: Job, setting: Setting) -> Training:
    """Return the original model as something to be found or trained."""
    recipe, network = _network(job, setting)
    watching = recorders(job)
    who = identity(job, setting)
    if watching:
        who |= {"records": [r.options() for r in watching]}
    seed = job.config["seeds"]["train"]
    title = "training the original model"
    return Training(who, network, setting.task.train, recipe, seed, title, watching)


def original(job: Job, setting: Setting) -> tuple[nn.Module, Trained]:
    """Find the original model in the cache or train it.

    Returns:
        The model on the device, in eval mode, and its notes.

    Raises:
        ValueError: If the user's own checkpoint does not fit, or was not watched while it learned.
    """
    if job.config.get("checkpoint") is not None:
        return _loaded(job, setting)
    new = training_of_original(job, setting)
    trained, cached = keep_trained(job, setting, new)
    if cached:
        log.info("original model: from the cache (trained in %.1f s)", trained.notes["seconds"])
    return new.network, trained


def _loaded(job: Job, setting: Setting) -> tuple[nn.Module, Trained]:
    """Return the user's own model, with notes as if its training had cost nothing."""
    if recorders(job):
        what = "discovery" if isinstance(job.build(job.config["forget_set"]), Detector) else "score"
        raise ValueError(
            f"{what}: this one must watch the model being trained, and checkpoint is a model that was "
            f"trained already; choose another {what}"
        )
    network = network_of(job, setting)
    given = brought(job, network)
    assert given is not None
    given.load_into(network)
    setting.engine.place(network).eval()
    return network, Trained({}, {}, {"seconds": 0.0, "images_seen": 0})


def brought(job: Job, network: nn.Module) -> Given | None:
    """Return the user's own checkpoint, fitted to ``network``; None if the original is trained here.

    Raises:
        ValueError: If it does not fit.
    """
    if job.config.get("checkpoint") is None:
        return None
    name = job.config["model"].get("name") or job.config["model"].get("path")
    what = f"model={job.names['model']}" + (f" ({name})" if name else "")
    return fit(Path(job.config["checkpoint"]), network, what)


def recorders(job: Job) -> list[Recorder]:
    """Return what watches the original's training, once each, for scores and detector of the job."""
    nodes = [job.config.get("score"), *(job.config.get("scores") or {}).values()]
    watching = [job.build(node) for node in nodes if node is not None]
    finder = job.build(job.config.get("forget_set"))
    watching += [finder] if isinstance(finder, Detector) else []
    made = [watcher.recorder() for watcher in watching]
    return list({json.dumps(r.options()): r for r in made if r is not None}.values())


def training_without(job: Job, setting: Setting, forget: torch.Tensor, title: str) -> Training:
    """Return a model that never sees some samples, by the original's recipe."""
    recipe, network = _network(job, setting)
    who = identity(job, setting) | {"forget": forget.tolist()}
    plain = replace(recipe, capacity=1.0, density=0.0)
    keep = torch.ones(len(setting.task.train), dtype=torch.bool)
    keep[forget] = False
    part = setting.task.train.rows(keep.to(setting.task.train.label.device))
    seed = job.config["seeds"]["train"]
    return Training(who, drop(network), part, plain, seed, f"training {title}")


def without(
    job: Job, setting: Setting, forget: torch.Tensor, title: str
) -> tuple[nn.Module, Trained, bool]:
    """Return a model that never saw some samples, by the original's recipe; cached."""
    new = training_without(job, setting, forget, title)
    trained, cached = keep_trained(job, setting, new)
    return new.network, trained, cached


def needs_retrained(job: Job) -> bool:
    """Say whether some metric of the job compares with the retrained reference."""
    metrics = job.build(job.config["evaluation"])
    return any("retrained" in declared(m).needs for m in metrics.values())


def retrained(job: Job, setting: Setting) -> Predictions | None:
    """Return the predictions of the retrained reference if some metric needs them; cached."""
    if not needs_retrained(job):
        return None
    gone = setting.task.asked().sort().values
    network, trained, _ = without(job, setting, gone, "the retrained reference")
    return replace(predict(network, setting.task), seconds=trained.notes["seconds"])
