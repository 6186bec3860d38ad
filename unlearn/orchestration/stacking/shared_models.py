"""Trains the models that the cells of a sweep share: originals, clean-only networks, retrained references."""

import itertools
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence

from unlearn.core.job import Job, original_identity
from unlearn.pipeline.clean_only import build_clean_only_spec
from unlearn.pipeline.context import RunContext, load_context
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.pipeline.stacked_training import must_train, stack_width, train_missing_stacked
from unlearn.pipeline.trained_models import (
    TrainingSpec,
    build_original_spec,
    build_spec_without,
    needs_retrained,
)

log = logging.getLogger(__name__)

SHARED_KEYS = ("dataset", "model", "pretraining", "trainer", "validation", "stack")
"""Config keys on which the models of one stack agree."""


def train_shared_models(jobs: Sequence[Job]) -> None:
    """Train the models that the jobs need, stacked if ``stack`` is set.

    A job that cannot be prepared is skipped; it reports the error when it runs.
    """
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if stack_width(job.config) > 1 and job.config.get("checkpoint") is None:
            same = {key: job.config.get(key) for key in SHARED_KEYS}
            where = job.config["paths"]["checkpoints"]
            groups[json.dumps([same, where], sort_keys=True)].append(job)
    for group in groups.values():
        for wanted in (
            _iterate_original_specs(group),
            _iterate_clean_only_specs(group),
            _iterate_reference_specs(group),
        ):
            lacks = ((s, t) for s, t in wanted if must_train(group[0], t))
            # A few at a time: every model holds its own data.
            while some := list(itertools.islice(lacks, stack_width(group[0].config))):
                train_missing_stacked(group[0], some)


def _iterate_clean_only_specs(jobs: Sequence[Job]) -> Iterator[tuple[RunContext, TrainingSpec]]:
    wanted = [job for job in jobs if job.config.get("clean_only")]
    for context, _ in _iterate_original_specs(wanted):
        if context.task.truth.corrupted.any():
            yield context, build_clean_only_spec(context)


def _iterate_original_specs(jobs: Sequence[Job]) -> Iterator[tuple[RunContext, TrainingSpec]]:
    own = [
        job for job in jobs if job.config.get("checkpoint") is None
    ]  # otherwise nothing is trained
    once = {json.dumps(original_identity(job.config), sort_keys=True): job for job in own}
    for job in once.values():
        try:
            context = load_context(job, forget=False)
            yield context, build_original_spec(context)
        except (ValueError, RuntimeError) as error:
            log.debug("trained later, one by one: %s", error)


def _iterate_reference_specs(jobs: Sequence[Job]) -> Iterator[tuple[RunContext, TrainingSpec]]:
    seen: set[str] = set()
    for job in jobs:
        same = original_identity(job.config)
        own = [same, *(job.config.get(k) for k in ("forget_set", "discovery", "score", "seeds"))]
        key = json.dumps(own, sort_keys=True)
        if key in seen:
            continue
        try:
            if not needs_retrained(job):
                continue
            seen.add(key)
            context = load_with_forget_set(job)
            for step in range(len(context.task.forget)):
                gone = context.task.requested_indices(step).sort().values
                yield context, build_spec_without(context, gone, "retrained references")
        except (ValueError, RuntimeError) as error:
            log.debug("trained later, one by one: %s", error)
