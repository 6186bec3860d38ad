"""Models that are trained once and cached: the original and models trained without some samples."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearn.core.job import Job
from unlearn.core.types import ImageSet
from unlearn.evaluation.evaluator import get_metric
from unlearn.evaluation.predictions import Predictions, predict_task
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.pipeline.context import (
    RunContext,
    build_untrained_network,
    new_network,
    original_model_identity,
)
from unlearn.scoring.base import Recorder
from unlearn.scoring.detection.base import Detector
from unlearn.storage.checkpoint_cache import CheckpointCache, TrainedModel
from unlearn.storage.state_dicts import epochs_done
from unlearn.storage.user_checkpoint import UserCheckpoint, match_checkpoint
from unlearn.training.loggers import continue_csv_logger
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining

log = logging.getLogger(__name__)

RESUME = "resume.ckpt"  # in the folder of a model during its training


def checkpoint_cache(job: Job) -> CheckpointCache:
    """Return the cache of trained models."""
    return CheckpointCache(Path(job.config["paths"]["checkpoints"]))


@dataclass(frozen=True)
class TrainingSpec:
    """A model of the cache, present or to be trained.

    Attributes:
        identity: Everything that determines its weights.
        network: Network with initial weights.
        data: Training data.
        recipe: Training recipe.
        seed: Seed of order and augmentation.
        title: Description for log lines.
        recorders: Record per-sample values during training.
    """

    identity: dict[str, Any]
    network: nn.Module
    data: ImageSet
    recipe: Pretraining
    seed: int
    title: str
    recorders: Sequence[Recorder] = ()


def load_or_train(context: RunContext, new: TrainingSpec) -> tuple[TrainedModel, bool]:
    """Load the network from the cache, or train and cache it with its records."""

    def train_network(folder: Path) -> TrainedModel:
        resume = folder / RESUME
        done = epochs_done(resume)
        after = f", continuing after epoch {done}" if done else ""
        log.info("%s (%d epochs%s) ...", new.title, new.recipe.epochs, after)
        notes = pretrain(
            new.network, new.data, new.recipe, context.engine,
            augment=context.dataset.augment,
            seed=new.seed,
            loggers=[continue_csv_logger(folder, done)],
            recorders=new.recorders,
            resume=resume,
            title=new.title,
        )  # fmt: skip
        records = {k: v for r in new.recorders for k, v in r.get_records().items()}
        return TrainedModel(state=cpu_state(new.network), records=records, notes=notes)

    trained, cached = checkpoint_cache(context.job).get_or_train(
        new.identity, train_network, network=new.network
    )
    new.network.load_state_dict(trained.state)
    context.engine.place_model(new.network).eval()
    return trained, cached


def cpu_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers on the CPU, in plain memory layout."""
    return {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}


def build_original_spec(context: RunContext) -> TrainingSpec:
    """Return the specification of the original model."""
    recipe, network = new_network(context)
    watching = build_recorders(context.job)
    who = original_model_identity(context)
    if watching:
        who |= {"records": [r.get_options() for r in watching]}
    seed = context.job.config["seeds"]["train"]
    title = "training the original model"
    return TrainingSpec(who, network, context.task.train, recipe, seed, title, watching)


def load_original(context: RunContext) -> tuple[nn.Module, TrainedModel]:
    """Load the original model from the cache or train it.

    Returns:
        The model on the device, in eval mode, and its notes.

    Raises:
        ValueError: If the user's own checkpoint does not fit, or records of its training are needed.
    """
    if context.job.config.get("checkpoint") is not None:
        return _load_user_model(context)
    new = build_original_spec(context)
    trained, cached = load_or_train(context, new)
    if cached:
        log.info(
            "original model: loaded from the cache (trained in %.1f s)", trained.notes["seconds"]
        )
    return new.network, trained


def _load_user_model(context: RunContext) -> tuple[nn.Module, TrainedModel]:
    """Return the user's own model, with notes of zero training cost."""
    if build_recorders(context.job):
        what = "discovery" if isinstance(context.job.node("forget_set"), Detector) else "score"
        raise ValueError(
            f"{what}: this one records values during training, but checkpoint is a model that is "
            f"already trained; choose another {what}"
        )
    network = build_untrained_network(context)
    given = read_user_checkpoint(context.job, network)
    assert given is not None
    given.load_into(network)
    context.engine.place_model(network).eval()
    return network, TrainedModel({}, {}, {"seconds": 0.0, "images_seen": 0})


def read_user_checkpoint(job: Job, network: nn.Module) -> UserCheckpoint | None:
    """Return the user's own checkpoint matched to ``network``; None if the original is trained here.

    Raises:
        ValueError: If it does not fit.
    """
    if job.config.get("checkpoint") is None:
        return None
    name = job.config["model"].get("name") or job.config["model"].get("path")
    what = f"model={job.names['model']}" + (f" ({name})" if name else "")
    return match_checkpoint(Path(job.config["checkpoint"]), network, what)


def build_recorders(job: Job) -> list[Recorder]:
    """Return the recorders of the original's training that the job's scores and detector need."""
    compared = (job.config.get("compare_scores") or {}).values()
    watching = [job.node("score"), *(job.build(node) for node in compared)]
    watching = [watcher for watcher in watching if watcher is not None]
    finder = job.node("forget_set")
    watching += [finder] if isinstance(finder, Detector) else []
    made = [watcher.make_recorder() for watcher in watching]
    return list({json.dumps(r.get_options()): r for r in made if r is not None}.values())


def build_spec_without(context: RunContext, forget: torch.Tensor, title: str) -> TrainingSpec:
    """Return the specification of a model trained without some samples, by the original's recipe."""
    recipe, network = new_network(context)
    who = original_model_identity(context) | {"forget": forget.tolist()}
    plain = replace(recipe, capacity=1.0, density=0.0)
    keep = torch.ones(len(context.task.train), dtype=torch.bool)
    keep[forget] = False
    part = context.task.train.rows(keep.to(context.task.train.label.device))
    seed = context.job.config["seeds"]["train"]
    return TrainingSpec(who, remove_extra_channels(network), part, plain, seed, f"training {title}")


def train_without(
    context: RunContext, forget: torch.Tensor, title: str
) -> tuple[nn.Module, TrainedModel, bool]:
    """Return a model trained without some samples, by the original's recipe; cached."""
    new = build_spec_without(context, forget, title)
    trained, cached = load_or_train(context, new)
    return new.network, trained, cached


def needs_retrained(job: Job) -> bool:
    """Return whether a metric of the job needs the retrained reference."""
    metrics = job.node("evaluation")
    return any("retrained" in get_metric(m).needs for m in metrics.values())


def predict_retrained(context: RunContext) -> Predictions | None:
    """Return the predictions of the retrained reference if a metric needs them; cached."""
    if not needs_retrained(context.job):
        return None
    gone = context.task.requested_indices().sort().values
    network, trained, _ = train_without(context, gone, "the retrained reference")
    return replace(predict_task(network, context.task), seconds=trained.notes["seconds"])
