"""A user's own model: checks before healing; file, card and report afterwards.

Shapes: N training samples, K classes.
"""

import csv
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unlearn.core.files import hash_file
from unlearn.core.job import Job
from unlearn.evaluation.class_losses import compare_classes
from unlearn.evaluation.found_next import find_suspects
from unlearn.evaluation.predictions import Predictions
from unlearn.methods.base import UnlearningMethod
from unlearn.pipeline.context import RunContext, build_untrained_network
from unlearn.pipeline.trained_models import cpu_state, read_user_checkpoint
from unlearn.storage.compliance import make_compliance
from unlearn.storage.model_card import make_card, write_card
from unlearn.storage.record import RunRecord
from unlearn.storage.state_dicts import save_state

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from unlearn.reporting.pages.healing_page import HealingReport

REPORT = "report.html"


def check_method(context: RunContext, method: Any) -> None:
    """Check before training that the method supports the network.

    Raises:
        ValueError: If it does not, with the reason.
    """
    check = getattr(type(method), "check_model", UnlearningMethod.check_model)
    if check is UnlearningMethod.check_model:
        return
    network = context.engine.place_model(build_untrained_network(context)).eval()
    batch = next(context.task.train.rows(torch.arange(2)).batches())
    method.check_model(network, batch.image.to(context.engine.device))


def export_model(
    context: RunContext, record: RunRecord, model: nn.Module, after: Predictions
) -> None:
    """Write the healed model in the given form, its card and, if possible, a report."""
    said: list[str] = []
    if context.original_predictions is not None:
        from unlearn.reporting.pages.healing_page import write_healing

        asked = bool(context.job.config.get("compliance"))
        source = _source_path(context.job)
        healing = make_healing(context, record, after, source, compliance=asked)
        said = healing.describe_proof()
        for line in said:
            log.info("%s", line)
        write_healing(context.job.folder / REPORT, healing)
        export_suspects(context.job.folder, context, after)
    if not context.job.config["save_model"]:
        return
    given = read_user_checkpoint(context.job, model)
    path = context.job.folder / (given.healed_file_name if given else "model.pt")
    original: dict[str, Any] = {"trained_here": given is None}
    if given is None:
        save_state(path, cpu_state(model))
    else:
        given.write_weights(path, cpu_state(model))
        source = Path(context.job.config["checkpoint"])
        original |= {
            "checkpoint": str(source),
            "sha256": hash_file(source),
            "form": given.describe_form(),
        }
    image = context.task.train.image
    options = context.job.config["dataset"]
    inputs = {"in_channels": image.shape[1], "image_size": image.shape[-1]}
    inputs |= {key: options.get(key) for key in ("mean", "std")}
    content = make_card(
        record,
        file=path.name,
        sha256=hash_file(path),
        original=original,
        inputs=inputs,
        classes=context.dataset.class_names,
        summary=said,
    )
    write_card(context.job.folder, content)


def export_forget_lists(folder: Path, context: RunContext) -> None:
    """Write the forget set: rows per request as JSON and, where they are files, a list of names.

    ``found.csv`` can be reviewed and passed to ``forget_set=file``.
    """
    lists = [part.tolist() for part in context.task.forget]
    (folder / "forget_set.json").write_text(json.dumps(lists))
    files = context.dataset.files
    if files is None:
        return
    with (folder / "found.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["file"], *([files[row]] for part in lists for row in part)])


def warn_lost_classes(context: RunContext, after: Predictions) -> None:
    """Log every class that lost accuracy, if the original's predictions are known."""
    before = context.original_predictions
    if before is None:
        return
    for one in compare_classes(before, after, context.task, context.dataset.class_names):
        if one.is_lost:
            log.warning("%s", one.describe())


def export_suspects(folder: Path, context: RunContext, after: Predictions) -> None:
    """Write ``found_next.csv``: images outside the list to look at next, the most promising first.

    Checked bad ones can be added to the list and passed to ``forget_set=file``.
    """
    files, names = context.dataset.files, context.dataset.class_names
    with (folder / "found_next.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file" if files else "id", "given", "suggested", "margin"])
        for one in find_suspects(after.train, context.task):
            who = files[one.row] if files else one.row
            writer.writerow([who, names[one.given], names[one.suggested], f"{one.margin:.4f}"])


def _source_path(job: Job) -> str:
    path = job.config["checkpoint"]
    return "a model that was trained here" if path is None else str(path)


def make_healing(
    context: RunContext,
    record: RunRecord,
    after: Predictions,
    source: str,
    *,
    compliance: bool = False,
) -> "HealingReport":
    """Return the data of a run's report, with the page for audits if ``compliance``.

    The context holds the predictions of the original.
    """
    from unlearn.reporting.pages.healing_page import HealingReport

    assert context.original_predictions is not None
    return HealingReport(
        title=f"{record.names['method']} on {record.names['model']}",
        source=source,
        task=context.task,
        before=context.original_predictions,
        after=after,
        class_names=context.dataset.class_names,
        files=context.dataset.files,
        seconds=record.seconds,
        status=record.reason or record.status,
        run_id=record.run_id,
        versions=record.versions,
        found_by=record.metrics.get("discovery/by"),  # type: ignore[arg-type]
        metrics=record.metrics,
        compliance=make_compliance(record, origin=source) if compliance else (),
    )
