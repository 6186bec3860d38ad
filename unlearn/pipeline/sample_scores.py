"""Scores of every training sample for a job, computed or read from the cache."""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearn.core.files import hash_file
from unlearn.core.job import Job
from unlearn.data.task import hide_view
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.inference import compute_embedding
from unlearn.pipeline.context import RunContext, original_model_identity
from unlearn.pipeline.detector_inputs import add_detector_inputs
from unlearn.pipeline.trained_models import (
    build_spec_without,
    checkpoint_cache,
    load_original,
    train_without,
)
from unlearn.scoring.base import SampleScorer, Score, ScoringInputs
from unlearn.scoring.detection.base import Detector
from unlearn.storage.checkpoint_cache import TrainedModel


def _run_scorer(
    context: RunContext, judge: SampleScorer
) -> tuple[torch.Tensor, TrainedModel, float]:
    """Return the values of a score or detector, the original model, and the seconds."""
    network, trained = load_original(context)
    started = time.perf_counter()
    spent: list[float] = []
    subject = _scoring_inputs(context, network, trained.records, spent)
    if isinstance(judge, Detector):
        subject = add_detector_inputs(context, judge, subject)
    said = judge(subject)
    return said, trained, time.perf_counter() - started + sum(spent)


def _scored_model_identity(context: RunContext) -> dict[str, Any]:
    """Return the identity of the original model; for a user's own, the hash of its file."""
    path = context.job.config.get("checkpoint")
    own = {} if path is None else {"checkpoint": hash_file(Path(path))}
    return original_model_identity(context) | own


def compute_features(context: RunContext) -> torch.Tensor:
    """Return the last features of the training images in the original model, (N, E)."""
    return compute_embedding(remove_extra_channels(load_original(context)[0]), context.task.train)


def compute_sample_scores(context: RunContext, node: dict[str, Any]) -> tuple[TrainedModel, Score]:
    """Return a score of every training sample, from the cache or computed.

    Returns:
        Its values as record "score" in addition to those of pre-training, its cost in the notes; and
        the score itself.
    """
    score: Score = (
        context.job.node("score")
        if node is context.job.config.get("score")
        else context.job.build(node)
    )

    def run_score(folder: Path) -> TrainedModel:
        values, trained, seconds = _run_scorer(context, score)
        recorder = score.make_recorder()
        if recorder is not None:
            seconds += trained.notes[f"seconds/{recorder.name}"]
        notes = {"seconds": seconds, "original_seconds": trained.notes["seconds"]} | score.notes
        return TrainedModel({}, trained.records | {"score": values.float()}, notes)

    who = _scored_model_identity(context) | {"score": node, "forget": []}
    return checkpoint_cache(context.job).get_or_train(who, run_score)[0], score


def score_samples_again(context: RunContext, network: nn.Module) -> tuple[torch.Tensor, float]:
    """Return the job's score of every training sample for another model, (N,), and the seconds."""
    score: Score = context.job.node("score")
    started = time.perf_counter()
    values = score(_scoring_inputs(context, network, context.task.records, []))
    return values.float(), time.perf_counter() - started


def _scoring_inputs(
    context: RunContext,
    network: nn.Module,
    records: Mapping[str, torch.Tensor],
    spent: list[float],
) -> ScoringInputs:
    """Return the inputs of a score; ``spent`` collects the training times of cached models."""
    from unlearn.pipeline.stacked_training import stack_width, train_missing_stacked

    def subset_models(parts: Sequence[tuple[torch.Tensor, int]]) -> Iterator[nn.Module]:
        wanted = [_subset_job(context, rows, seed) for rows, seed in parts]
        step = max(1, stack_width(context.job.config))
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            fresh = set()
            if len(some) > 1:
                new = [
                    (context, build_spec_without(replace(context, job=j), gone, "parts"))
                    for j, gone in some
                ]
                fresh = set(train_missing_stacked(context.job, new))
            for own, gone in some:
                model, trained, cached = train_without(replace(context, job=own), gone, "a part")
                key = checkpoint_cache(context.job).compute_key(
                    original_model_identity(replace(context, job=own)) | {"forget": gone.tolist()}
                )
                spent.append(trained.notes["seconds"] if cached and key not in fresh else 0.0)
                yield model

    return ScoringInputs(
        data=hide_view(context.task.train),
        model=lambda: remove_extra_channels(copy.deepcopy(network)).eval(),
        records=records,
        validation=context.dataset.validation,
        test=context.task.test,
        subset_models=subset_models,
    )


def _subset_job(context: RunContext, rows: torch.Tensor, seed: int) -> tuple[Job, torch.Tensor]:
    """Return a job with the seed of a model trained on some rows only, and the other rows."""
    own = replace(
        context.job,
        config=context.job.config | {"seeds": context.job.config["seeds"] | {"train": seed}},
    )
    left_out = torch.ones(len(context.task.train), dtype=torch.bool)
    left_out[rows] = False
    return own, left_out.nonzero().flatten()
