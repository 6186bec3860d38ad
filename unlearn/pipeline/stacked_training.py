"""Trains missing models of the cache as one stack, where that is faster.

``stack=auto``: one by one on a CPU; on a GPU, a few steps are timed.
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

MOST = 16  # width of a stack if stack=auto
MIN_SPEEDUP = 1.2  # minimum speed-up for stack=auto


def stack_width(config: dict[str, Any]) -> int:
    """Return the width of a stack according to ``stack``; 1: one by one."""
    asked = str(config.get("stack", "auto")).lower()
    if asked == "auto":
        gpu = config["trainer"]["accelerator"] != "cpu" and torch.cuda.is_available()
        return MOST if gpu else 1
    return int(asked) if asked.isdigit() else 1


def must_train(job: Job, training: TrainingSpec) -> bool:
    """Return whether a model is neither cached, partly trained, nor recorded during training."""
    folder = checkpoint_cache(job).model_folder(training.identity)
    there = any((folder / name).exists() for name in ("model.pt", RESUME))
    return not there and not training.recorders


def train_missing_stacked(job: Job, wanted: Sequence[tuple[RunContext, TrainingSpec]]) -> list[str]:
    """Train the models that are not cached as one stack, if there are several and it is faster.

    A model is skipped if another process trains it, if it is partly trained, if per-sample values
    are recorded during its training, or if its loss becomes NaN.

    Args:
        job: Any job that needs them; gives the cache and the stack width.
        wanted: Models of one architecture and recipe, with the objects they belong to.

    Returns:
        Keys of the trained models.
    """
    most, store = stack_width(job.config), checkpoint_cache(job)
    absent = {store.compute_key(t.identity): (s, t) for s, t in wanted if must_train(job, t)}
    made: list[str] = []
    while most > 1 and len(absent) > 1:
        # Equal parts: 17 models are split into 9 and 8, not 16 and 1.
        take = -(-len(absent) // -(-len(absent) // most))
        part = [absent.pop(key) for key in list(absent)[:take]]
        if len(part) > 1:
            made += _train_stack(job, part)
    return made


def _train_stack(job: Job, part: Sequence[tuple[RunContext, TrainingSpec]]) -> list[str]:
    """Train a stack; return the keys of the models that were cached."""
    context, first = part[0]
    reason = find_obstacle(context.engine, first.network)
    if first.recipe.objective is not None:
        reason = "the objective has a state of its own"
    if reason is not None:
        log.info("training one by one: %s", reason)
        return []
    store, identities = checkpoint_cache(job), [training.identity for _, training in part]

    def train_members(folders: dict[int, Path]) -> Iterator[tuple[int, TrainedModel]]:
        yield from _pretrain_members(job, {n: part[n] for n in folders}, folders)

    before = {n for n, who in enumerate(identities) if store.load_model(who) is not None}
    try:
        store.train_missing(identities, train_members)
    except RuntimeError as error:  # out of memory, or an operation that cannot be batched
        log.warning("training one by one, the stack failed: %s", str(error).splitlines()[0])
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
            log.info(
                "training one by one: a stack of %d is only %.2f times as fast", len(members), times
            )
            return
    log.info("%s: stack of %d (%d epochs) ...", first.title, len(members), first.recipe.epochs)
    for place, notes in pretrain_stacked(members, first.recipe, context.engine, augment=augment):
        yield numbers[place], TrainedModel(cpu_state(members[place].network), {}, notes)
