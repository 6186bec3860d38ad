"""Estimates how regular the bad data of a job are, so that advice can be given on the nearest kind."""

import logging

from unlearn.core.job import Job
from unlearn.data.forget_sets.discovered import Discovered
from unlearn.models.inference import logits
from unlearn.pipeline.context import RunContext
from unlearn.pipeline.forget_set import prepared
from unlearn.pipeline.trained_models import without
from unlearn.scoring.detection.base import Detector
from unlearn.scoring.regularity import LEAST, Regularity, concentration, consistency, held_out

log = logging.getLogger(__name__)


def regularity(job: Job) -> Regularity | None:
    """Return the estimate for a list or a detector's finds; None if there is nothing to go by.

    That is so where the kind of corruption is given, where no list is, and where the list is short.
    """
    if job.config["names"]["corruption"] != "none":
        return None
    choose = job.node("forget_set")
    if isinstance(choose, Discovered):
        return None
    context = prepared(job)
    count = len(context.task.discovered())
    if count < LEAST:
        log.warning("%d listed images are too few to say how regular they are", count)
        return None
    if isinstance(choose, Detector):
        log.warning("%d images were flagged; false alarms among them look regular", count)
    return estimated(context)


def estimated(context: RunContext) -> Regularity:
    """Return the estimate for the forget set of a setting; a model is trained without half of it."""
    train, forget = context.task.train, context.task.discovered().cpu()
    rows = forget[held_out(len(forget), context.job.config["seeds"]["discovery"])]
    network, _, _ = without(context, rows, "a model that does not see half of the list")
    held = train.rows(rows.to(train.label.device))
    label = train.label.cpu()
    return Regularity(
        count=len(forget),
        concentration=concentration(label[forget], label, train.num_classes),
        consistency=consistency(logits(network, held), held.label),
    )
