"""Scores of every training sample for a job, computed or read from the cache."""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearn.core.job import Job
from unlearn.data.task import sealed
from unlearn.models.expansion.expanded import drop
from unlearn.models.inference import embedding
from unlearn.pipeline.context import RunContext, identity
from unlearn.pipeline.stacked_training import train_missing, width
from unlearn.pipeline.trained_models import cache, original, training_without, without
from unlearn.scoring.base import Judge, Score, Subject
from unlearn.storage.checkpoint_cache import Trained
from unlearn.storage.user_checkpoint import digest as file_digest


def _said(context: RunContext, judge: Judge) -> tuple[torch.Tensor, Trained, float]:
    """Return what a score or detector says of the original model, that model, and the seconds."""
    network, trained = original(context)
    started = time.perf_counter()
    spent: list[float] = []
    said = judge(_subject(context, network, trained.records, spent))
    return said, trained, time.perf_counter() - started + sum(spent)


def _judged(context: RunContext) -> dict[str, Any]:
    """Return the identity of the original model: of the user's own, what its file holds counts."""
    path = context.job.config.get("checkpoint")
    own = {} if path is None else {"checkpoint": file_digest(Path(path))}
    return identity(context) | own


def features(context: RunContext) -> torch.Tensor:
    """Return the last features of the training images in the original model, (N, E)."""
    return embedding(drop(original(context)[0]), context.task.train)


def name_of(node: Mapping[str, Any]) -> str:
    """Return what a score is called in tables."""
    return str(node.get("event") or str(node["_target_"]).split(".")[-2])


def scored(context: RunContext, node: dict[str, Any]) -> tuple[Trained, Score]:
    """Return a score of every training sample, from the cache or computed.

    Returns:
        Its values as the record "score" beside those of pre-training, its cost in the notes; and
        the score itself.
    """
    score: Score = (
        context.job.node("score")
        if node is context.job.config.get("score")
        else context.job.build(node)
    )

    def compute(folder: Path) -> Trained:
        values, trained, seconds = _said(context, score)
        recorder = score.recorder()
        if recorder is not None:
            seconds += trained.notes[f"seconds/{recorder.name}"]
        notes = {"seconds": seconds, "original_seconds": trained.notes["seconds"]} | score.notes
        return Trained({}, trained.records | {"score": values.float()}, notes)

    who = _judged(context) | {"score": node, "forget": []}
    return cache(context.job).get_or_train(who, compute)[0], score


def rescored(context: RunContext, network: nn.Module) -> tuple[torch.Tensor, float]:
    """Return the job's score of every training sample for another model, (N,), and its seconds."""
    score: Score = context.job.node("score")
    started = time.perf_counter()
    values = score(_subject(context, network, context.task.records, []))
    return values.float(), time.perf_counter() - started


def _subject(
    context: RunContext,
    network: nn.Module,
    records: Mapping[str, torch.Tensor],
    spent: list[float],
) -> Subject:
    """Return what a score may look at; ``spent`` gets what models from the cache once took."""

    def subset_models(parts: Sequence[tuple[torch.Tensor, int]]) -> Iterator[nn.Module]:
        wanted = [_left_out(context, rows, seed) for rows, seed in parts]
        step = max(1, width(context.job.config))
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            fresh = set()
            if len(some) > 1:
                new = [
                    (context, training_without(replace(context, job=j), gone, "parts"))
                    for j, gone in some
                ]
                fresh = set(train_missing(context.job, new))
            for own, gone in some:
                model, trained, cached = without(replace(context, job=own), gone, "a part")
                key = cache(context.job).key(
                    identity(replace(context, job=own)) | {"forget": gone.tolist()}
                )
                spent.append(trained.notes["seconds"] if cached and key not in fresh else 0.0)
                yield model

    return Subject(
        data=sealed(context.task.train),
        model=lambda: drop(copy.deepcopy(network)).eval(),
        records=records,
        validation=context.dataset.validation,
        test=context.task.test,
        subset_models=subset_models,
    )


def _left_out(context: RunContext, rows: torch.Tensor, seed: int) -> tuple[Job, torch.Tensor]:
    """Return a job with the seed of a model that sees some rows alone, and the other rows."""
    own = replace(
        context.job,
        config=context.job.config | {"seeds": context.job.config["seeds"] | {"train": seed}},
    )
    left_out = torch.ones(len(context.task.train), dtype=torch.bool)
    left_out[rows] = False
    return own, left_out.nonzero().flatten()
