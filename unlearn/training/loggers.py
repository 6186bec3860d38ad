"""Lightning loggers of a run."""

import functools
import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from unlearn.core.connection import can_connect
from unlearn.training.engine import silence_lightning
from unlearn.training.trackers import TrackioLogger, name_run

log = logging.getLogger(__name__)


def csv_logger(*, folder: Path, run_id: str, tags: dict[str, str]) -> Logger:
    """Return a logger that writes curves to ``<folder>/curves/metrics.csv``."""
    return CSVLogger(folder, name="curves", version="")


def continue_csv_logger(folder: Path, epochs: int) -> Logger:
    """Return a logger that continues ``<folder>/curves/metrics.csv`` of a resumed training.

    Args:
        folder: Folder of the model.
        epochs: Number of epochs already trained; 0: start a new file.
    """
    path = folder / "curves" / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True) if epochs and path.exists() else []
    logger = CSVLogger(folder, name="curves", version="")
    with silence_lightning():
        _ = logger.experiment  # removes the existing file
    if lines:
        place = lines[0].strip().split(",").index("epoch")
        kept = [x for x in lines[1:] if x.endswith("\n") and float(x.split(",")[place]) <= epochs]
        path.write_text("".join([lines[0], *kept]))
    return logger


def tensorboard_logger(*, folder: Path, run_id: str, tags: dict[str, str]) -> Logger:
    """Return a logger that writes event files to ``<folder>/tensorboard``.

    Raises:
        ValueError: If the package tensorboard is not installed.
    """
    try:
        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ValueError(
            "logger=tensorboard needs the package tensorboard: pip install tensorboard"
        ) from error


def wandb_logger(
    *,
    folder: Path,
    run_id: str,
    tags: dict[str, str],
    project: str,
    entity: str | None,
    artifacts: bool = False,
) -> Logger:
    """Return a Weights & Biases logger; offline without key, login or connection.

    Args:
        folder: The run's folder.
        run_id: Id of the run.
        tags: Tags of the run: dataset, corruption, model, method.
        project: W&B project.
        entity: W&B team; None: the user's default.
        artifacts: Whether files are uploaded, too; see ``run_tracking.log_healed_model``.
    """
    import wandb  # slow to import, and only this logger needs it

    why = None if "WANDB_MODE" in os.environ else no_server()
    if why:
        _say_offline(why, folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    # Lightning's own call of init passes an option that W&B warns about.
    run = wandb.init(
        dir=folder,
        project=project,
        entity=entity,
        name=name_run(tags),
        group=tags.get("dataset"),
        job_type=tags.get("method", "train"),
        tags=[f"{k}={v}" for k, v in tags.items()],
        id=None if "WANDB_SWEEP_ID" in os.environ else run_id,  # a sweep's agent sets the id
        mode="offline" if why else None,
        settings=wandb.Settings(silent=True),
    )
    return WandbLogger(experiment=run)


def close_logger(logger: Logger, *, failed: bool = False) -> None:
    """Flush and close; otherwise a W&B run would continue in the next job of this process."""
    logger.finalize("failed" if failed else "success")
    logger.save()
    if isinstance(logger, WandbLogger):
        logger.experiment.finish(exit_code=int(failed))
    elif isinstance(logger, TrackioLogger):
        logger.close()


@functools.cache
def _say_offline(why: str, folder: Path) -> None:
    """Log once how to upload runs recorded offline."""
    log.info("W&B: %s, recording offline; send later: wandb sync %s/*/wandb/offline-*", why, folder)


@functools.cache
def no_server() -> str | None:
    """Return why runs cannot be uploaded, or None; cached for all jobs of a process."""
    if not _logged_in():
        return "no key found"
    import wandb  # slow to import, and only this logger needs it

    url = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    if not can_connect(url):
        return f"{urlsplit(url).hostname} cannot be reached"
    return None


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb  # slow to import, and only this logger needs it
    from wandb.errors import Error

    try:
        return bool(wandb.login(prompt=False))
    except Error:
        return False


class CurveRecorder:
    """Stores logged metrics in memory."""

    def __init__(self) -> None:
        """Initialize an empty list."""
        self.values: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        """Store values and step."""
        self.values.append((values, step))

    def save(self) -> None:
        """Do nothing."""
