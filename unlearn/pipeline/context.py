"""The objects of a job: data, ground truth, engine, method and untrained network."""

import copy
import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearn.core.job import Job, original_identity
from unlearn.core.stored_images import hash_images, update_hash
from unlearn.core.types import ImageSet
from unlearn.data.corruption.base import Corruption
from unlearn.data.datasets.base import Dataset
from unlearn.data.forget_sets.base import ForgetSet
from unlearn.data.forget_sets.discovered import add_clean_samples
from unlearn.data.task import Task, Truth
from unlearn.evaluation.predictions import Predictions
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.retrain import Retrain
from unlearn.models.inference import limit_batch_bytes
from unlearn.models.initial_weights import start_from
from unlearn.pipeline.trusted_set import check_trusted_set, draw_trusted_set
from unlearn.scoring.detection.base import Detector
from unlearn.storage.initial_weights import read_initial_weights
from unlearn.training.engine import Engine
from unlearn.training.network_trial import fit_layout
from unlearn.training.recipe import Pretraining

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext:
    """Data, ground truth and engine of a job, shared by all of its models.

    Attributes:
        job: The job; its ``node`` holds the objects of its config.
        dataset: The clean data.
        task: The unlearning task.
        engine: Training engine.
        data_digest: Hash of the training set as received.
        dataset_digest: Hash of the clean data set, training and test; None if it is not known.
        forget_set_facts: Facts about the forget set, for the row.
        held_out: Trusted images that were taken out of the training set; None if none were.
        embedding: Features of the training set in the original model, (N, E), if a metric needs them.
        original_predictions: Predictions of the original model, if a metric or a report needs them.
    """

    job: Job
    dataset: Dataset
    task: Task
    engine: Engine
    data_digest: str
    dataset_digest: str | None = None
    forget_set_facts: dict[str, Any] = field(default_factory=dict)
    held_out: ImageSet | None = None
    embedding: torch.Tensor | None = None
    original_predictions: Predictions | None = None


@functools.lru_cache(maxsize=2)
def _load_dataset(node: str, build: Callable[[Any], Any]) -> tuple[Dataset, bytes, str]:
    """Return a data set, the hash of its training images and that of all; cached per process."""
    dataset: Dataset = build(json.loads(node)).load()
    pixels = hash_images(dataset.train.image)
    whole = hashlib.sha256(pixels)
    for part in (dataset.train.label, dataset.test.image, dataset.test.label):
        update_hash(whole, part)
    return dataset, pixels, whole.hexdigest()[:16]


def build_engine(config: dict[str, Any], image_size: int) -> Engine:
    """Return the training engine.

    Args:
        config: Config of the job.
        image_size: Height and width in pixels.

    Raises:
        ValueError: If a GPU is requested and torch finds none.
    """
    options = dict(config["trainer"])
    if options["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator=gpu, but torch finds no GPU; use auto or cpu")
    threads = options.pop("threads")
    if threads is not None:
        torch.set_num_threads(threads)
    limit_batch_bytes(options.pop("evaluation_batch_bytes", None))
    auto = options["progress"] in ("auto", None)
    options["progress"] = (
        sys.stderr.isatty() if auto else str(options["progress"]).lower() == "true"
    )
    return Engine(**options, image_size=image_size)


def count_corrupted(corrupted: float, size: int, multiple: int = 1) -> int:
    """Return how many of ``size`` samples to corrupt: a share below 1, else a count.

    Args:
        corrupted: Share in (0, 1), rounded to the nearest multiple; or a count.
        size: Number of samples.
        multiple: Samples that a corruption takes at a time; 2 if it swaps labels.

    Raises:
        ValueError: If the result is 0 or larger than ``size``.
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


def load_context(job: Job, *, forget: bool) -> RunContext:
    """Load the data, corrupt it and, if requested, choose the forget set."""
    config = job.config
    dataset, pixels, whole = _load_dataset(json.dumps(config["dataset"], sort_keys=True), job.build)
    if config.get("class_order") is not None:
        dataset = dataset.reorder_classes(config["class_order"])
    choose = job.node("forget_set")
    if isinstance(choose, ForgetSet):
        dataset = choose.restore_listed(dataset)
    if config.get("validation") is not None:
        dataset = dataset.hold_out(config["validation"])
    held_out = None
    if (source := job.node("trusted")) is not None:
        dataset, held_out = source.hold_out(dataset)
    engine = build_engine(config, dataset.train.image.shape[-1])
    corruption: Corruption = job.node("corruption")
    count = count_corrupted(config["corrupted"], len(dataset.train), corruption.multiple)
    train, truth = corruption(dataset.train, count=count, seed=config["seeds"]["data"])
    content = pixels + train.label.numpy().tobytes() + truth.corrupted.numpy().tobytes()
    if held_out is not None:
        content += train.image.numpy().tobytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    found: tuple[torch.Tensor, ...] = ()
    if forget:
        if isinstance(choose, Detector):
            raise ValueError("tuning needs a simulated discovery rate: discovery=0.5")
        found = choose(truth, rate=config["discovery"], seed=config["seeds"]["discovery"])
        found = add_false_alarms(config, found, truth)
    task = Task(train=train, test=dataset.test, truth=truth, forget=found)
    context = RunContext(job, dataset, task, engine, digest, whole, held_out=held_out)
    if forget:
        task, found, _ = draw_trusted_set(context, found)
        task = replace(task, forget=found)
    return replace(context, task=_move_to_device(task, engine))


def add_false_alarms(
    config: Mapping[str, Any], found: tuple[torch.Tensor, ...], truth: Truth
) -> tuple[torch.Tensor, ...]:
    """Return requests with the false alarms that ``discovery_precision`` requires."""
    precision, seed = config.get("discovery_precision"), config["seeds"]["discovery"]
    if precision is None:
        return found
    return tuple(add_clean_samples(part, truth.corrupted, precision, seed) for part in found)


def _move_to_device(task: Task, engine: Engine) -> Task:
    """Move the images to the GPU if they need less than half of its free memory."""
    if engine.device.type == "cpu":
        return task
    size = task.train.image.numel() + task.test.image.numel()
    if not engine.fits_memory(size):
        log.info("images stay in main memory: %.1f GB do not fit on the GPU", size / 1e9)
        return task
    known = None if task.trusted is None else task.trusted.to(engine.device)
    train, test = task.train.to(engine.device), task.test.to(engine.device)
    return replace(task, train=train, test=test, trusted=known)


def new_network(context: RunContext) -> tuple[Pretraining, nn.Module]:
    """Return the original's recipe and its network with initial weights."""
    seeds = context.job.config["seeds"]
    recipe: Pretraining = context.job.node("pretraining")
    factory = context.job.node("model")
    network = recipe.build_initial_network(
        factory, context.task.train, seed=seeds["train"], mask_seed=seeds["mask"]
    )
    if context.job.config.get("init") is not None:
        path = Path(context.job.config["init"])
        absent = start_from(network, read_initial_weights(path, network), f"init={path}")
        new = f"; drawn at random: {', '.join(absent[:4])}" if absent else ""
        _log_once(logging.INFO, f"trainings start from {path}{new}")
    if hasattr(network, "build_again"):  # a network of the user, of torchvision or timm
        few = next(context.task.train.rows(torch.arange(2)).batches()).image
        fit_layout(network, few, context.engine, json.dumps(context.job.config["model"]))
    said = _describe_input(context.job.config, network)
    if said is not None:
        _log_once(*said)
    return recipe, network


def _describe_input(config: Mapping[str, Any], network: nn.Module) -> tuple[int, str] | None:
    """Return log level and line about the input of given weights; None if it is not known."""
    own = getattr(network, "network_input", None)
    given = config.get("checkpoint") is not None
    if own is None or not (given or config["model"].get("pretrained")):
        return None
    data = config["dataset"]
    other = own.compare(data["mean"], data["std"], data["image_size"])
    name = f"timm's {config['model']['name']}"
    resized = "" if own.interpolation == "bilinear" else f"; resized {own.interpolation} there"
    if other:
        level = logging.INFO if given else logging.WARNING
        return level, f"not the input of {name}: {', '.join(other)}{resized}"
    return logging.INFO, (
        f"input of {name}: mean {list(own.mean)}, std {list(own.std)}, {own.image_size} pixels, "
        f"of its data config{resized}"
    )


@functools.lru_cache(maxsize=16)
def _log_once(level: int, line: str) -> None:
    log.log(level, line)


def build_untrained_network(context: RunContext) -> nn.Module:
    """Return the job's network with initial weights."""
    return new_network(context)[1]


def build_method(job: Job, node: Any = None) -> UnlearningMethod:
    """Return a new instance of the job's method, wrapped in its localization if it has one.

    Args:
        job: The job.
        node: Config node of another method; None: the job's method.

    Raises:
        ValueError: If the method has its own localization, a budget is set without one, or the
            method needs a trusted set and the job has none.
    """
    method = _build_method(job, node)
    check_trusted_set(job, method)
    return method


def _build_method(job: Job, node: Any = None) -> UnlearningMethod:
    """Return the method, see ``build_method``."""
    config = job.config
    method: Any = copy.deepcopy(job.node("method")) if node is None else job.build(node)
    objective = getattr(job.node("pretraining"), "objective", None)
    if isinstance(method, Retrain) and method.role == "reference" and objective is not None:
        method.use_objective(objective)  # retrains as the original was trained
    options: dict[str, Any] = {
        key: config.get(f"mask_{key}") for key in ("batch_norm", "head", "trainable")
    }
    budget = config.get("budget")
    inside = isinstance(method, UnlearningMethod) and method.has_localization
    if config.get("localization") is None:
        if not inside and (budget is not None or any(options.values())):
            raise ValueError("budget and mask_* need a localization, such as localization=salloc")
        return method
    if inside:
        name = type(method).__name__
        raise ValueError(f"{name} has its own localization; use method=rft for others")
    if not isinstance(method, UnlearningMethod):
        raise ValueError(
            f"{type(method).__name__} runs other methods; set the localization of those instead"
        )
    from unlearn.methods.localized import Localized

    localizer = copy.deepcopy(job.node("localization"))
    options["batch_norm"] = options["batch_norm"] or "update"
    return Localized(method, localizer=localizer, budget=budget, **options)


def original_model_identity(context: RunContext) -> dict[str, Any]:
    """Return everything that determines the original model's weights, without rate and method."""
    found = {"data_digest": context.data_digest, "precision": context.engine.resolved_precision()}
    return original_identity(context.job.config) | found
