"""Metrics of refined unlearning: closeness to the model retrained without the forget set.

Sources: accuracy gaps, ToW, entanglement (arXiv 2406.01257), ToW-MIA (arXiv 2410.16516).
Shapes: N training samples, T test samples, K classes, E embedding.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unlearn.data.task import Task
from unlearn.evaluation.membership_inference import (
    FEATURES,
    MEMBERS,
    classify_membership,
    draw_stratified,
)
from unlearn.evaluation.metrics import accuracy, metric
from unlearn.evaluation.predictions import Predictions
from unlearn.scoring.score_groups import GROUPS, entanglement_score, sort_ascending

PARTS = ("forget", "retain", "test")
LIMIT = 10_000
"""Maximum training samples per side of the attack, whose cost is quadratic."""


def select_outputs(predictions: Predictions, task: Task) -> dict[str, tuple[Tensor, Tensor]]:
    """Return outputs and given labels of the forget, retain and test set."""
    label = task.train.label.cpu()
    forget, retain = task.forget_indices().cpu(), task.retain_indices().cpu()
    return {
        "forget": (predictions.train[forget], label[forget]),
        "retain": (predictions.train[retain], label[retain]),
        "test": (predictions.test, task.test.label.cpu()),
    }


def merge_requests(task: Task) -> Task:
    """Return the task with all requests up to its step merged into one."""
    return replace(task, forget=(task.requested_indices().sort().values,), step=0)


def _require_retrained(retrained: Predictions | None) -> Predictions:
    if retrained is None:
        raise ValueError("no retrained model")
    return retrained


@metric(
    {"forget/accuracy": "min", "retain/accuracy": "max"}
    | {f"{p}/accuracy_gap": "min" for p in PARTS}
    | {f"{p}/disagreement": "min" for p in PARTS}
    | {"tow_so_far": "max", "so_far/accuracy": "min", "so_far/accuracy_gap": "min"}
    | {"so_far/disagreement": "min"},
    needs=("forget", "retrained"),
)
def compute_gaps(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return accuracies, absolute gaps to the retrained model, and disagreement with it.

    ToW compares averages; disagreement compares samples. "so far", for successive requests,
    uses the union of all forget sets up to the step.
    """
    out = {}
    theirs = select_outputs(_require_retrained(retrained), task)
    for part, (ours, label) in select_outputs(predictions, task).items():
        other = theirs[part][0]
        value = accuracy(ours, label)
        if part != "test":  # part of the metric of that name
            out[f"{part}/accuracy"] = value
        out[f"{part}/accuracy_gap"] = abs(value - accuracy(other, label))
        differ = ours.argmax(1) != other.argmax(1)
        out[f"{part}/disagreement"] = differ.float().mean().item()
    if task.step:
        union = compute_gaps(predictions, merge_requests(task), retrained)
        kept = (1 - out["retain/accuracy_gap"]) * (1 - out["test/accuracy_gap"])
        out["tow_so_far"] = (1 - union["forget/accuracy_gap"]) * kept
        for name in ("accuracy", "accuracy_gap", "disagreement"):
            out[f"so_far/{name}"] = union[f"forget/{name}"]
    return out


def attack_forget_set(
    predictions: Predictions, task: Task, *, feature: str, members: str, seed: int
) -> float:
    """Return membership inference on the forget set: the fraction that looks unseen.

    Args:
        predictions: Predictions of the attacked model.
        task: Its data; the test set provides the non-members.
        feature: One of ``FEATURES``.
        members: "stratified": retain samples drawn by class; "first": the first ones.
        seed: Seed of that draw; equal for all models, so that they share the members.

    Raises:
        ValueError: If an option is unknown.
    """
    if feature not in FEATURES or members not in MEMBERS:
        raise ValueError(
            f"evaluation: mia must have a feature of {', '.join(FEATURES)} and members of "
            f"{', '.join(MEMBERS)}, got {feature} and {members}"
        )
    sets = select_outputs(predictions, task)
    count = min(len(sets["retain"][1]), len(sets["test"][1]), LIMIT)
    keep = {
        "retain": draw_stratified(sets["retain"][1], count, seed)
        if members == "stratified"
        else torch.arange(count),
        "test": draw_stratified(sets["test"][1], count, seed),
        "forget": slice(None),
    }
    f = {p: FEATURES[feature](z[keep[p]], y[keep[p]]).float() for p, (z, y) in sets.items()}
    return classify_membership(f["retain"], f["test"], f["forget"])


def compute_efficacy(
    predictions: Predictions, task: Task, retrained: Predictions | None, name: str, **options: Any
) -> dict[str, float]:
    """Return MIA of the model as ``name``, of the retrained one, and their gap."""
    ours = attack_forget_set(predictions, task, **options)
    theirs = attack_forget_set(_require_retrained(retrained), task, **options)
    return {name: ours, f"{name}_retrained": theirs, f"{name}_gap": abs(ours - theirs)}


@metric(
    {"mia": "max", "mia_retrained": "max", "mia_gap": "min", "tow_mia": "max"}
    | {"mia_correctness": "max", "mia_correctness_retrained": "max", "mia_correctness_gap": "min"}
    | {"so_far/mia": "max", "so_far/mia_retrained": "max", "so_far/mia_gap": "min"}
    | {"tow_mia_so_far": "max"},
    needs=("forget", "retrained"),
)
def compute_mia(
    predictions: Predictions,
    task: Task,
    retrained: Predictions | None,
    *,
    feature: str = "confidence",
    members: str = "stratified",
    seed: int = 0,
) -> dict[str, float]:
    """Return MIA of the model and of the retrained one, their gap, and ToW-MIA.

    ToW-MIA is ToW with the gap in MIA in place of the gap in forget accuracy. MIA on correctness
    is also given, since both are in use (arXiv 2412.02432).
    """
    options = {"members": members, "seed": seed}
    out = compute_efficacy(predictions, task, retrained, "mia", feature=feature, **options)
    out |= compute_efficacy(
        predictions, task, retrained, "mia_correctness", feature="correctness", **options
    )
    rest = compute_gaps(predictions, task, retrained)
    kept = (1 - rest["retain/accuracy_gap"]) * (1 - rest["test/accuracy_gap"])
    out["tow_mia"] = (1 - out["mia_gap"]) * kept
    if task.step:
        union = merge_requests(task)
        out |= compute_efficacy(
            predictions, union, retrained, "so_far/mia", feature=feature, **options
        )
        out["tow_mia_so_far"] = (1 - out["so_far/mia_gap"]) * kept
    return out


@metric({"relative_seconds": "min"}, needs=("retrained",))
def relative_time(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return the seconds of the unlearning relative to those of retraining."""
    reference = _require_retrained(retrained)
    if predictions.seconds is None or reference.seconds is None:
        return {}
    return {"relative_seconds": predictions.seconds / reference.seconds}


@metric(
    {"forget_set/entanglement": "min", "forget_set/entanglement_midpoint": "min"},
    needs=("forget", "embedding"),
)
def compute_entanglement(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return the entanglement of forget and retain set in the original model's last features."""
    if predictions.embedding is None:
        raise ValueError("no embedding of the original model")
    score: Callable[[str], float] = functools.partial(
        entanglement_score,
        predictions.embedding,
        task.forget_indices().cpu(),
        task.retain_indices().cpu(),
    )
    return {
        "forget_set/entanglement": score("exact"),
        "forget_set/entanglement_midpoint": score("midpoint"),
    }


@metric(
    {f"forget/accuracy_{g}": "min" for g in GROUPS}
    | {f"forget/accuracy_gap_{g}": "min" for g in GROUPS},
    needs=("forget", "score", "retrained"),
)
def compute_score_group_accuracies(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return forget accuracy, and its gap to the retrained model, per third of the forget set by score."""
    forget = task.forget_indices().cpu()
    label, other = task.train.label.cpu(), _require_retrained(retrained)
    out = {}
    parts = sort_ascending(task.records["score"].cpu()[forget]).tensor_split(len(GROUPS))
    for group, rows in zip(GROUPS, parts, strict=True):
        part = forget[rows]
        if not len(part):
            continue
        ours, theirs = (accuracy(p.train, label, part) for p in (predictions, other))
        out[f"forget/accuracy_{group}"] = ours
        out[f"forget/accuracy_gap_{group}"] = abs(ours - theirs)
    return out
