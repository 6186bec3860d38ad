"""Trains models that the cache lacks several at once, where that is faster; one by one they are found there.

``stack=auto`` asks the device: on a CPU it trains one by one, on a GPU a few steps are timed.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger

from unlearn.core.job import Job
from unlearn.pipeline.context import RunContext
from unlearn.pipeline.trained_models import RESUME, TrainingSpec, checkpoint_cache, cpu_state
from unlearn.storage.checkpoint_cache import TrainedModel
from unlearn.training.stacked.pretraining import StackMember, find_obstacle, pretrain_stacked
from unlearn.training.stacked.speedup import measure_speedup

log = logging.getLogger(__name__)

MOST = 16  # models at once where stack=auto chooses
MIN_SPEEDUP = 1.2  # times as fast as one by one, or stack=auto keeps to that


def stack_width(config: dict[str, Any]) -> int:
    """Return how many models to train at once by ``stack``; 1: one by one."""
    asked = str(config.get("stack", "auto")).lower()
    if asked == "auto":
        gpu = config["trainer"]["accelerator"] != "cpu" and torch.cuda.is_available()
        return MOST if gpu else 1
    return int(asked) if asked.isdigit() else 1


def must_train(job: Job, training: TrainingSpec) -> bool:
    """Say whether a model is neither in the cache nor begun alone, nor watched while it learns."""
    folder = checkpoint_cache(job).model_folder(training.identity)
    there = any((folder / name).exists() for name in ("model.pt", RESUME))
    return not there and not training.recorders


def train_missing_stacked(job: Job, wanted: Sequence[tuple[RunContext, TrainingSpec]]) -> list[str]:
    """Train those models that are not in the cache, if there are several and it pays.

    A model that is being trained elsewhere, was begun alone, is watched while it learns, or whose
    loss is lost, is left for its turn alone.

    Args:
        job: One that needs them: says where the cache is, and how many to train at once.
        wanted: Models of one architecture and recipe, with what they belong to.

    Returns:
        Keys of the models that were trained.
    """
    most, store = stack_width(job.config), checkpoint_cache(job)
    absent = {store.compute_key(t.identity): (s, t) for s, t in wanted if must_train(job, t)}
    made: list[str] = []
    while most > 1 and len(absent) > 1:
        # Of equal parts: 17 models are 9 and 8, not 16 and 1.
        take = -(-len(absent) // -(-len(absent) // most))
        part = [absent.pop(key) for key in list(absent)[:take]]
        if len(part) > 1:
            made += _train_stack(job, part)
    return made


def _train_stack(job: Job, part: Sequence[tuple[RunContext, TrainingSpec]]) -> list[str]:
    """Train a stack; return the keys of the models that it has left in the cache."""
    context, first = part[0]
    reason = find_obstacle(context.engine, first.network)
    if reason is not None:
        log.info("one by one: %s", reason)
        return []
    store, identities = checkpoint_cache(job), [training.identity for _, training in part]

    def train_members(folders: dict[int, Path]) -> Iterator[tuple[int, TrainedModel]]:
        yield from _pretrain_members(job, {n: part[n] for n in folders}, folders)

    before = {n for n, who in enumerate(identities) if store.load_model(who) is not None}
    try:
        store.train_missing(identities, train_members)
    except RuntimeError as error:  # out of memory, or an operation that cannot be batched
        log.warning("one by one: training as a stack failed: %s", str(error).splitlines()[0])
    there = {n for n, who in enumerate(identities) if store.load_model(who) is not None}
    return [store.compute_key(identities[n]) for n in sorted(there - before)]


def _pretrain_members(
    job: Job, part: dict[int, tuple[RunContext, TrainingSpec]], folders: dict[int, Path]
) -> Iterator[tuple[int, TrainedModel]]:
    if len(part) < 2:
        return
    numbers = list(part)
    context, first = part[numbers[0]]
    members = [
        StackMember(t.network, t.data, t.seed, [CSVLogger(folders[n], name="curves", version="")])
        for n, (_, t) in part.items()
    ]
    augment = context.dataset.augment
    if str(job.config["stack"]).lower() == "auto":
        times = measure_speedup(members, first.recipe.batch_size, context.engine, augment=augment)
        if times < MIN_SPEEDUP:
            log.info("one by one: %d at once are %.2f times as fast", len(members), times)
            return
    log.info("%s: %d at once (%d epochs) ...", first.title, len(members), first.recipe.epochs)
    for place, notes in pretrain_stacked(members, first.recipe, context.engine, augment=augment):
        yield numbers[place], TrainedModel(cpu_state(members[place].network), {}, notes)
