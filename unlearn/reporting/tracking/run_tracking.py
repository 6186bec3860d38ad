"""Logging of a run to W&B besides its curves: a write-only mirror of the row.

Shapes: N samples, K classes, C H W image.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from torch import Tensor

from unlearn.core import environment
from unlearn.core.job import Job, describe_discovery
from unlearn.data.task import Task
from unlearn.evaluation.predictions import Predictions
from unlearn.storage.model_card import NAME as CARD
from unlearn.storage.model_card import read_card
from unlearn.storage.record import RunRecord, mask_environment_secrets, mask_secrets
from unlearn.training.loggers import close_logger
from unlearn.training.trackers import TrackioLogger

REPORT = "report.html"  # of one run, in its folder
SHOWN = 16  # corrupted samples in the grid
SPACE = ("method", "corruption", "discovery", "dataset", "model", "pretraining", "seed")
"""Columns that locate a run in the task space; also part of its W&B summary."""


def count_confusion(true: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Return the confusion matrix, int64 (K, K): rows true, columns predicted.

    Args:
        true: Class per sample, int64 (N,).
        predicted: Class per sample, int64 (N,).
        num_classes: K.
    """
    pairs = true * num_classes + predicted
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def select_samples(task: Task, count: int) -> Tensor:
    """Return corrupted samples to show, sorted int64, at most (count,): half found, half hidden."""
    found = torch.cat(task.forget).sort().values
    hidden = task.corrupted_indices[~torch.isin(task.corrupted_indices, found)]
    half = max(count // 2, count - len(hidden))
    first = found[:half]
    return torch.cat([first, hidden[: count - len(first)]]).sort().values


def render_samples(task: Task, index: Tensor) -> Tensor:
    """Return samples as input to the network, including triggers, uint8 (n, H, W, C)."""
    rows = task.train.rows(index.to(task.train.label.device))
    image = rows.view(rows.image[:], rows.index).float().cpu()
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    scaled = (image - low) / (high - low).clamp_min(1e-6) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1)


def caption_samples(task: Task, index: Tensor, before: Tensor, after: Tensor) -> list[str]:
    """Return a caption per sample: index, labels, and predictions before and after.

    Args:
        task: Data and truth.
        index: Samples, int64 (n,).
        before: Class predicted by the original model, int64 (N,).
        after: Class predicted by the healed model, int64 (N,).
    """
    found = set(torch.cat(task.forget).tolist())
    clean, given = task.truth.clean_label.cpu(), task.train.label.cpu()
    return [
        f"{i} {'found' if i in found else 'hidden'}: true {int(clean[i])}, given {int(given[i])}, "
        f"predicted {int(before[i])} -> {int(after[i])}"
        for i in index.tolist()
    ]


@contextmanager
def open_loggers(job: Job, but: Sequence[str] = ()) -> Iterator[list[Logger]]:
    """Open a job's loggers, and always close them before the next job.

    Args:
        job: The job.
        but: Names of loggers to exclude.
    """
    tags = {k: str(v) for k, v in job.names.items()}
    tags |= {"discovery": describe_discovery(job.config)} if "discovery" in job.config else {}
    tags |= {"seed": str(job.config["seed"])} if "seed" in job.config else {}
    about = {"folder": job.folder, "run_id": job.run_id, "tags": tags}
    chosen = (job.config.get("logger") or {}).items()
    loggers = [job.build({**node, **about}) for name, node in chosen if node and name not in but]
    failed = True
    try:
        log_config(loggers, job.config, environment.find_revision())
        yield loggers
        failed = False
    finally:
        for logger in loggers:
            close_logger(logger, failed=failed)


def get_wandb_runs(loggers: Sequence[Logger]) -> list[Any]:
    """Return the W&B runs among the loggers."""
    return [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]


def get_trackers(loggers: Sequence[Logger]) -> list[Any]:
    """Return the loggers that take a config and a row as numbers: MLflow and trackio."""
    return [logger for logger in loggers if isinstance(logger, MLFlowLogger | TrackioLogger)]


def log_config(loggers: Sequence[Logger], config: Mapping[str, Any], revision: str | None) -> None:
    """Log the resolved config and the git revision."""
    shown = mask_environment_secrets(mask_secrets(config))
    for logger in get_trackers(loggers):
        logger.log_hyperparams({**shown, "git_revision": revision})
    for run in get_wandb_runs(loggers):
        # Values set by a sweep's agent are the same, since they come from the command line.
        run.config.update({**shown, "git_revision": revision}, allow_val_change=True)


def log_result(
    loggers: Sequence[Logger],
    record: RunRecord,
    task: Task,
    before: Predictions | None,
    after: Predictions | None,
) -> None:
    """Log a step's row, its metrics as the run's summary, confusion matrices and the sample grid.

    Args:
        loggers: Of the run.
        record: The row.
        task: Data and truth.
        before: Of the original model.
        after: Of the healed one; None if it has collapsed.
    """
    for run in get_wandb_runs(loggers):
        import wandb  # slow to import, and only this logger needs it

        row = record.to_row()
        table = wandb.Table(columns=list(row), data=[[_table_value(v) for v in row.values()]])
        content: dict[str, Any] = {"row": table}
        numbers = {k: v for k, v in record.metrics.items() if isinstance(v, int | float)}
        for name, predictions in (("before", before), ("after", after)):
            if predictions is not None:
                content |= {
                    f"confusion/{part}/{name}": _confusion_table(wandb, matrix)
                    for part, matrix in _confusion_matrices(task, predictions).items()
                }
        if before is not None and after is not None and task.forget:
            content["samples"] = _build_sample_grid(wandb, task, before, after)
        run.log(content | numbers)
        space = {key: row[key] for key in (*SPACE, "regularity") if key in row}
        run.summary.update(
            {**space, **numbers, "seconds": record.seconds}
            | {"status": record.status, "reason": record.reason}
        )


def log_numbers(loggers: Sequence[Logger], row: Mapping[str, Any], step: int = 0) -> None:
    """Log the numbers of a row to MLflow and trackio as ``row/<column>``, its status as a tag.

    Without the prefix, a curve of the same name, such as seconds, would hide a number of the row.

    Args:
        loggers: Of the run.
        row: Metrics, seconds and status of the row.
        step: Number of the request.
    """
    numbers = {f"row/{k}": float(v) for k, v in row.items() if isinstance(v, int | float)}
    for logger in get_trackers(loggers):
        logger.log_metrics(numbers, step=step)
        if isinstance(logger, MLFlowLogger) and "status" in row:
            logger.experiment.set_tag(str(logger.run_id), "status", row["status"])


def log_healed_model(loggers: Sequence[Logger], config: Mapping[str, Any], folder: Path) -> None:
    """Log a run's healed model, card and report as an artifact, if ``logger.wandb.artifacts``.

    Args:
        loggers: Of the run.
        config: Config of the run.
        folder: The run's folder with a card.
    """
    if not (config["logger"].get("wandb") or {}).get("artifacts"):
        return
    card = read_card(folder)
    report = folder / REPORT
    files = [folder / card["file"], folder / CARD, *([report] if report.is_file() else [])]
    facts = {**card["names"], **{k: card[k] for k in ("run_id", "sha256", "healed_of")}}
    for run in get_wandb_runs(loggers):
        log_files(run, f"healed-{card['run_id']}", "model", files, facts)


def log_files(
    run: Any, name: str, kind: str, files: Sequence[Path], facts: Mapping[str, Any]
) -> None:
    """Log files as one artifact of a W&B run; they are uploaded from where they are, not copied.

    Args:
        run: W&B run.
        name: Name of the artifact.
        kind: Its type, such as model or report.
        files: Files, stored by their names.
        facts: Its metadata.
    """
    import wandb  # slow to import, and only this logger needs it

    artifact = wandb.Artifact(name, type=kind, metadata=dict(facts))
    for path in files:
        artifact.add_file(str(path), skip_cache=True, policy="immutable")
    run.log_artifact(artifact)


def log_curves(loggers: Sequence[Logger], path: Path) -> None:
    """Log the curves of pre-training from its CSV file, as it may run in another process."""
    if not loggers or not path.exists():
        return
    with path.open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    for row in rows:
        for logger in loggers:
            logger.log_metrics(row, step=int(row["step"]))


def log_original(
    loggers: Sequence[Logger], row: Mapping[str, Any], task: Task, said: Predictions
) -> None:
    """Log an original model's row as the run's summary, and its confusion matrices."""
    log_numbers(loggers, row)
    for run in get_wandb_runs(loggers):
        import wandb  # slow to import, and only this logger needs it

        matrices = _confusion_matrices(task, said).items()
        run.log(
            {
                f"confusion/{part}/before": _confusion_table(wandb, matrix)
                for part, matrix in matrices
            }
        )
        run.summary.update(dict(row))


def _confusion_matrices(task: Task, predictions: Predictions) -> dict[str, Tensor]:
    """Return confusion matrices: of the test set, and of the corrupted samples by their true class."""
    k, where = task.train.num_classes, task.corrupted_indices.cpu()
    clean = task.truth.clean_label.cpu()
    said = predictions.train.argmax(1)
    return {
        "test": count_confusion(task.test.label.cpu(), predictions.test.argmax(1), k),
        "corrupted": count_confusion(clean[where], said[where], k),
    }


def _confusion_table(wandb: Any, matrix: Tensor) -> Any:
    data = [
        [true, predicted, count]
        for true, row in enumerate(matrix.tolist())
        for predicted, count in enumerate(row)
    ]
    return wandb.Table(columns=["true", "predicted", "count"], data=data)


def _build_sample_grid(
    wandb: Any, task: Task, before: Predictions, after: Predictions
) -> list[Any]:
    index = select_samples(task, SHOWN).cpu()
    lines = caption_samples(task, index, before.train.argmax(1), after.train.argmax(1))
    images = render_samples(task, index).numpy()
    return [wandb.Image(i.squeeze(), caption=c) for i, c in zip(images, lines, strict=True)]


def _table_value(value: Any) -> Any:
    """Return a value in a type that W&B tables accept."""
    return value if isinstance(value, int | float | str | bool | None) else str(value)
