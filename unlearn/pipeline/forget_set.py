"""Forget sets of a job, including those that need a score, the original model or a detector."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unlearn.core.job import Job, chosen_option
from unlearn.data.forget_sets.base import ForgetSet, hash_indices
from unlearn.data.task import Task
from unlearn.pipeline.context import RunContext, add_false_alarms, load_context
from unlearn.pipeline.detector_inputs import identify_detector_inputs
from unlearn.pipeline.sample_scores import (
    _run_scorer,
    _scored_model_identity,
    compute_features,
    compute_sample_scores,
)
from unlearn.pipeline.trained_models import checkpoint_cache
from unlearn.pipeline.trusted_set import draw_trusted_set
from unlearn.scoring.detection.base import Detector, precision_recall
from unlearn.storage.checkpoint_cache import TrainedModel

log = logging.getLogger(__name__)

LONG_LIST_FRACTION = 0.2
"""Fraction of the training set above which a detector's list causes a warning."""


def needs_original_model(job: Job) -> bool:
    """Return whether choosing the forget set needs the original model."""
    choose = job.node("forget_set")
    if job.config.get("score") is not None or isinstance(choose, Detector):
        return True
    return bool({"embedding", "score", "center"} & set(choose.needs))


def load_with_forget_set(job: Job) -> RunContext:
    """Load the data of a job and choose its forget set; see ``add_forget_set``."""
    return add_forget_set(load_context(job, forget=False))


def add_forget_set(context: RunContext) -> RunContext:
    """Return the context with the forget set, and with the score that the job names.

    Raises:
        ValueError: If the forget set needs a score and there is none.
    """
    config, task = context.job.config, context.task
    choose = context.job.node("forget_set")
    known: dict[str, Any] = {"class_names": context.dataset.class_names}
    cost: dict[str, Any] = {}
    if config.get("score") is not None:
        trained, score = compute_sample_scores(context, config["score"])
        known |= {"score": trained.records["score"], "center": score.center}
        cost = {"score": chosen_option(config, "score"), "score_seconds": trained.notes["seconds"]}
        task = replace(task, records=trained.records)
    if isinstance(choose, Detector):
        found, facts = (detect_suspects(context, choose),), choose.notes
        cost |= {"discovery/by": chosen_option(config, "detector")}
    else:
        found = _choose_requests(context, choose, known)
        facts = choose.notes
        task = replace(task, truth=replace(task.truth, known_label=choose.true_label))
        task = replace(task, wrong_labels=choose.wrong_labels)
    found = add_false_alarms(config, found, task.truth)
    task, found, audit = draw_trusted_set(replace(context, task=task), found)
    facts = {"size": len(found[0]), **facts, "hash": hash_indices(torch.cat(found))[:12]}
    cost |= (
        {f"forget_set/{k}": v for k, v in facts.items()} | _discovery_quality(task, found) | audit
    )
    return replace(context, task=replace(task, forget=found), forget_set_facts=cost)


def _choose_requests(
    context: RunContext, choose: ForgetSet, known: dict[str, Any]
) -> tuple[torch.Tensor, ...]:
    """Return the requests of a forget set that is built from the ground truth."""
    config, needs = context.job.config, choose.needs
    if "names" in needs:
        known = known | {"names": _index_images(context)}
    if "embedding" in needs:
        known = known | {"embedding": compute_features(context)}
    absent = [need for need in needs if need not in known]
    if absent:
        raise ValueError(
            "this forget_set needs a memorization score: score=holdout_retraining, or another "
            f"of conf/score; absent: {', '.join(absent)}"
        )
    return choose(
        context.task.truth,
        rate=config["discovery"],
        seed=config["seeds"]["discovery"],
        **{need: known[need] for need in needs},
    )


def _index_images(context: RunContext) -> Any:
    """Return the index of the training images by name."""
    from unlearn.data.forget_sets.sample_list import ImageIndex

    split_folder = context.dataset.split_off is None
    return ImageIndex(context.dataset.files, len(context.task.train), test_folder=split_folder)


def _discovery_quality(task: Task, found: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """Return size, precision and recall of the found samples, if the corruption is simulated."""
    every = torch.cat(found)
    if not task.truth.corrupted.any():
        return {"discovery/size": len(every)}
    quality = {"size": len(every)} | precision_recall(every, task.truth.corrupted)
    return {f"discovery/{k}": v for k, v in quality.items()}


def detect_suspects(context: RunContext, detector: Detector) -> torch.Tensor:
    """Return the samples that a detector flags, cached; its notes get the cost.

    Raises:
        ValueError: If it flags no or all samples.
    """
    node, name = context.job.config["forget_set"], chosen_option(context.job.config, "detector")

    def run_detector(folder: Path) -> TrainedModel:
        suspects, _, seconds = _run_scorer(context, detector)
        return TrainedModel({}, {"suspects": suspects}, {"seconds": seconds} | detector.notes)

    who = _scored_model_identity(context) | {"detector": node, "forget": []}
    who |= identify_detector_inputs(context.job.config, detector)
    result, _ = checkpoint_cache(context.job).get_or_train(who, run_detector)
    suspects, total = result.records["suspects"], len(context.task.train)
    if not 0 < len(suspects) < total:
        raise ValueError(
            f"discovery={name} flags {len(suspects)} of {total} training samples, "
            "so the forget set or the retain set is empty; change forget_set.* or choose "
            "another"
        )
    if len(suspects) > LONG_LIST_FRACTION * total:
        log.warning(
            "discovery=%s flags %d of %d training samples: such a long list is probably wrong, and "
            "unlearning clean images harms the model; look at some, or choose another detector",
            name, len(suspects), total,
        )  # fmt: skip
    detector.notes |= result.notes
    return suspects
