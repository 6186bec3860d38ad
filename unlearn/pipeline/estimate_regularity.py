"""Estimates the regularity of a job's bad data, to find the nearest measured corruption."""

import logging

from unlearn.core.job import Job, chosen_option
from unlearn.data.forget_sets.discovered import Discovered
from unlearn.models.inference import compute_logits
from unlearn.pipeline.context import RunContext
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.pipeline.trained_models import train_without
from unlearn.scoring.detection.base import Detector
from unlearn.scoring.regularity import (
    LEAST,
    Regularity,
    held_out,
    label_concentration,
    label_consistency,
)

log = logging.getLogger(__name__)


def estimate_list_regularity(job: Job) -> Regularity | None:
    """Return the estimate for a list or the samples a detector found; None if not available.

    None if the kind of corruption is given, if there is no list, or if the list is short.
    """
    if chosen_option(job.config, "corruption") != "none":
        return None
    choose = job.node("forget_set")
    if isinstance(choose, Discovered):
        return None
    context = load_with_forget_set(job)
    count = len(context.task.forget_indices())
    if count < LEAST:
        log.warning("%d listed images are too few to estimate their regularity", count)
        return None
    if isinstance(choose, Detector):
        log.warning(
            "%d images were flagged; false alarms among them increase the estimated regularity",
            count,
        )
    return estimate_regularity(context)


def estimate_regularity(context: RunContext) -> Regularity:
    """Return the estimate for the forget set of a context; trains a model without half of it."""
    train, forget = context.task.train, context.task.forget_indices().cpu()
    rows = forget[held_out(len(forget), context.job.config["seeds"]["discovery"])]
    network, _, _ = train_without(context, rows, "a model trained without half of the list")
    held = train.rows(rows.to(train.label.device))
    label = train.label.cpu()
    return Regularity(
        count=len(forget),
        concentration=label_concentration(label[forget], label, train.num_classes),
        consistency=label_consistency(compute_logits(network, held), held.label),
    )
