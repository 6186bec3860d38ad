"""Scores of memorization for a job, and forget sets that need them, the original model or a detector."""

import copy
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearn.bad_list import Names
from unlearn.checkpoints import Trained
from unlearn.detection.base import Detector, precision_recall
from unlearn.forget_sets import digest
from unlearn.given import digest as file_digest
from unlearn.job import Job, detector_name
from unlearn.memorization.base import Judge, Score, Subject
from unlearn.models.expansion import drop
from unlearn.models.predict import embedding
from unlearn.originals import cache, original, training_without, without
from unlearn.setting import Setting, alarmed, identity, prepare
from unlearn.stacking import train_missing, width
from unlearn.task import Task, sealed

log = logging.getLogger(__name__)

MANY = 0.2
"""Share of the training set beyond which a detector's list is doubted aloud."""


def waits(job: Job) -> bool:
    """Say whether choosing the forget set needs the original model: then it must be there first."""
    choose = job.build(job.config["forget_set"])
    needed = set(getattr(choose, "needs", ())) & {"embedding", "score", "center"}
    return job.config.get("score") is not None or bool(needed) or isinstance(choose, Detector)


def prepared(job: Job, setting: Setting | None = None) -> Setting:
    """Return data and truth with the forget set, and with the score that the job names.

    Args:
        job: The job.
        setting: Its data without a forget set, if they are at hand.

    Raises:
        ValueError: If the forget set needs a score and there is none.
    """
    setting = prepare(job, forget=False) if setting is None else setting
    config, task = job.config, setting.task
    choose = job.build(config["forget_set"])
    files = setting.dataset.files
    names = Names(files, len(task.train), test_folder=setting.dataset.split_off is None)
    known: dict[str, Any] = {"names": names, "class_names": setting.dataset.class_names}
    cost: dict[str, Any] = {}
    if config.get("score") is not None:
        trained, score = scored(job, setting, config["score"])
        known |= {"score": trained.records["score"], "center": score.center}
        cost = {"score": name_of(config["score"]), "score_seconds": trained.notes["seconds"]}
        task = replace(task, records=trained.records)
    if isinstance(choose, Detector):
        found, facts = (detected(job, setting, choose),), choose.notes
        cost |= {"discovery/by": detector_name(config["forget_set"])}
    else:
        found = _chosen(job, setting, choose, known)
        facts = getattr(choose, "notes", {})
    found = alarmed(config, found, task.truth)
    truth = replace(task.truth, known_label=getattr(choose, "true_label", None))
    task = replace(task, truth=truth)
    facts = {"size": len(found[0]), **facts, "hash": digest(torch.cat(found))[:12]}
    cost |= {f"forget_set/{k}": v for k, v in facts.items()} | _quality(task, found)
    return replace(setting, task=replace(task, forget=found), facts=cost)


def _chosen(
    job: Job, setting: Setting, choose: Any, known: dict[str, Any]
) -> tuple[torch.Tensor, ...]:
    """Return the requests of a forget set that is built from the truth."""
    config, needs = job.config, getattr(choose, "needs", ())
    if "embedding" in needs:
        known = known | {"embedding": features(job, setting)}
    absent = [need for need in needs if need not in known]
    if absent:
        raise ValueError(
            "this forget_set needs a score of memorization: score=holdout_retraining, or another "
            f"of conf/score; absent: {', '.join(absent)}"
        )
    return choose(
        setting.task.truth,
        rate=config["discovery"],
        seed=config["seeds"]["discovery"],
        **{need: known[need] for need in needs},
    )


def _quality(task: Task, found: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """Return size, precision and recall of what was found, if the corruption is simulated."""
    every = torch.cat(found)
    if not task.truth.corrupted.any():
        return {"discovery/size": len(every)}
    quality = {"size": len(every)} | precision_recall(every, task.truth.corrupted)
    return {f"discovery/{k}": v for k, v in quality.items()}


def detected(job: Job, setting: Setting, detector: Detector) -> torch.Tensor:
    """Return what a detector suspects, from the cache or searched for; its notes get the cost.

    Raises:
        ValueError: If it suspects nothing, or everything.
    """
    node = job.config["forget_set"]

    def search(folder: Path) -> Trained:
        suspects, _, seconds = _said(job, setting, detector)
        return Trained({}, {"suspects": suspects}, {"seconds": seconds} | detector.notes)

    who = _judged(job, setting) | {"detector": node, "forget": []}
    result, _ = cache(job).get_or_train(who, search)
    suspects, total = result.records["suspects"], len(setting.task.train)
    if not 0 < len(suspects) < total:
        raise ValueError(
            f"discovery={detector_name(node)} suspects {len(suspects)} of {total} training samples, "
            "which leaves nothing to unlearn or nothing to retain; change forget_set.* or choose "
            "another"
        )
    if len(suspects) > MANY * total:
        log.warning(
            "discovery=%s suspects %d of %d training samples: few lists of that length are right, and "
            "unlearning clean images harms the model; look at some, or choose another detector",
            detector_name(node), len(suspects), total,
        )  # fmt: skip
    detector.notes |= result.notes
    return suspects


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
    score: Score = job.build(node)

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
    score: Score = job.build(job.config["score"])
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
