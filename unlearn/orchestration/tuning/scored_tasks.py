"""Tasks on which settings are scored, without ground truth.

The forget set of each cell is split: one half goes to the method, the other half stays in the
retain set with its corrupted labels and simulates the hidden part. No true label, hidden sample or
test image affects a score.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from unlearn.core.errors import CollapsedError
from unlearn.core.job import Job
from unlearn.core.types import Request
from unlearn.data.task import Task
from unlearn.methods.components.floors import estimate_floors
from unlearn.methods.components.healing_score import (
    HealingScore,
    ScoreParts,
    build_healing_score,
)
from unlearn.methods.components.samples import split_positions
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.pipeline.context import RunContext, build_method, load_context, original_model_identity
from unlearn.pipeline.trained_models import load_original
from unlearn.pipeline.trusted_set import build_request
from unlearn.training.unlearning import LightningFit


@dataclass(frozen=True)
class HeldOutTask:
    """One task whose forget set is split, and its original model.

    Attributes:
        name: Corruption and discovery rate.
        context: The task's data and engine.
        task: The task with the method's half of the forget set.
        score: Scores networks on the held-out half and on the retain set without it.
        model: The original model.
        seed: Seed of the unlearning.
    """

    name: str
    context: RunContext
    task: Task
    score: HealingScore
    model: nn.Module
    seed: int

    def score_method(self, job: Job, method: Any) -> ScoreParts:
        """Run the method of a config node on its own copy of the original model."""
        unlearner = build_method(job, method)
        fit = LightningFit(
            self.context.engine, augment=self.context.dataset.augment, seed=self.seed
        )
        try:
            model = unlearner.unlearn(
                copy.deepcopy(self.model), build_request(self.task, unlearner), fit
            )
        except CollapsedError:
            return ScoreParts(kept=0.0, healed=0.0)
        return self.score.measure(remove_extra_channels(model).eval())


def split_forget_set(found: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return two random halves of a forget set, sorted: for the method, and held out.

    Args:
        found: Indices, int64 (n,).
        seed: Of the order.

    Raises:
        ValueError: If there are fewer than two.
    """
    if len(found) < 2:
        raise ValueError(
            f"tune.discoveries must find at least two samples, half are held out; got {len(found)}"
        )
    given, held = split_positions(len(found), seed)
    return found[given].sort().values, found[held].sort().values


def load_tasks(jobs: Sequence[Job], seed: int) -> list[HeldOutTask]:
    """Return the cells of jobs; those that differ only in discovery share data and model."""
    shared: dict[str, tuple[Task, nn.Module]] = {}
    cells = []
    for job in jobs:
        setting = load_context(job, forget=True)
        who = json.dumps(original_model_identity(setting), sort_keys=True)
        if who not in shared:
            shared[who] = setting.task, load_original(setting)[0]
        task, model = shared[who]
        task = replace(setting.task, train=task.train, test=task.test)
        name = f"{job.names['corruption']} {job.config['discovery']:g}"
        cells.append(make_held_out_task(name, setting, task, model, seed))
    return cells


def make_held_out_task(
    name: str, setting: RunContext, task: Task, model: nn.Module, seed: int
) -> HeldOutTask:
    """Return a cell of a task, with half of the forget set for the method."""
    device = task.train.label.device
    given, held = split_forget_set(task.forget_indices(), seed)
    request = Request(
        forget=task.train.rows(held.to(device)),
        retain=task.train.rows(task.retain_indices().to(device)),
        wrong_labels=task.wrong_labels,
    )
    original = remove_extra_channels(model)
    score = build_healing_score(original, request, estimate_floors(original, request))
    return HeldOutTask(
        name=name,
        context=replace(setting, task=task),
        task=replace(task, forget=(given,)),
        score=score,
        model=model,
        seed=seed,
    )
