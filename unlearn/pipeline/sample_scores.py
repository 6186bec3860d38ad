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
from unlearn.pipeline.context import Setting, identity
from unlearn.pipeline.stacked_training import train_missing, width
from unlearn.pipeline.trained_models import cache, original, training_without, without
from unlearn.scoring.base import Judge, Score, Subject
from unlearn.storage.checkpoint_cache import Trained
from unlearn.storage.user_checkpoint import digest as file_digest


def _said(job: Job, setting: Setting, judge: Judge) -> tuple[torch.Tensor, Trained, float]:
    """Return what a score or detector says of the original model, that model, and the seconds."""
    network, trained = original(job, setting)
    started = time.perf_counter()
    spent: list[float] = []
    said = judge(_subject(job, setting, network, trained.records, spent))
    return said, trained, time.perf_counter() - started + sum(spent)


def _judged(job: Job, setting: Setting) -> dict[str, Any]:
    """Return the identity of the original model: of the user's own, what its file holds counts."""
    path = job.config.get("checkpoint")
    own = {} if path is None else {"checkpoint": file_digest(Path(path))}
    return identity(job, setting) | own


def features(job: Job, setting: Setting) -> torch.Tensor:
    """Return the last features of the training images in the original model, (N, E)."""
    return embedding(drop(original(job, setting)[0]), setting.task.train)


def name_of(node: Mapping[str, Any]) -> str:
    """Return what a score is called in tables."""
    return str(node.get("event") or str(node["_target_"]).split(".")[-2])


def scored(job: Job, setting: Setting, node: dict[str, Any]) -> tuple[Trained, Score]:
    """Return a score of every training sample, from the cache or computed.

    Returns:
        Its values as the record "score" beside those of pre-training, its cost in the notes; and
        the score itself.
    """
    score: Score = job.node("score") if node is job.config.get("score") else job.build(node)

    def compute(folder: Path) -> Trained:
        values, trained, seconds = _said(job, setting, score)
        recorder = score.recorder()
        if recorder is not None:
            seconds += trained.notes[f"seconds/{recorder.name}"]
        notes = {"seconds": seconds, "original_seconds": trained.notes["seconds"]} | score.notes
        return Trained({}, trained.records | {"score": values.float()}, notes)

    who = _judged(job, setting) | {"score": node, "forget": []}
    return cache(job).get_or_train(who, compute)[0], score


def rescored(job: Job, setting: Setting, network: nn.Module) -> tuple[torch.Tensor, float]:
    """Return the job's score of every training sample for another model, (N,), and its seconds."""
    score: Score = job.node("score")
    started = time.perf_counter()
    values = score(_subject(job, setting, network, setting.task.records, []))
    return values.float(), time.perf_counter() - started


def _subject(
    job: Job,
    setting: Setting,
    network: nn.Module,
    records: Mapping[str, torch.Tensor],
    spent: list[float],
) -> Subject:
    """Return what a score may look at; ``spent`` gets what models from the cache once took."""

    def subset_models(parts: Sequence[tuple[torch.Tensor, int]]) -> Iterator[nn.Module]:
        wanted = [_left_out(job, setting, rows, seed) for rows, seed in parts]
        step = max(1, width(job.config))
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            fresh = set()
            if len(some) > 1:
                new = [(setting, training_without(j, setting, gone, "parts")) for j, gone in some]
                fresh = set(train_missing(job, new))
            for own, gone in some:
                model, trained, cached = without(own, setting, gone, "a part")
                key = cache(job).key(identity(own, setting) | {"forget": gone.tolist()})
                spent.append(trained.notes["seconds"] if cached and key not in fresh else 0.0)
                yield model

    return Subject(
        data=sealed(setting.task.train),
        model=lambda: drop(copy.deepcopy(network)).eval(),
        records=records,
        validation=setting.dataset.validation,
        test=setting.task.test,
        subset_models=subset_models,
    )


def _left_out(
    job: Job, setting: Setting, rows: torch.Tensor, seed: int
) -> tuple[Job, torch.Tensor]:
    """Return a job with the seed of a model that sees some rows alone, and the other rows."""
    own = replace(job, config=job.config | {"seeds": job.config["seeds"] | {"train": seed}})
    left_out = torch.ones(len(setting.task.train), dtype=torch.bool)
    left_out[rows] = False
    return own, left_out.nonzero().flatten()
