"""Lightning loggers, made from the run's folder."""

import logging
import os
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

log = logging.getLogger(__name__)


def csv_logger(*, folder: Path, run_id: str, tags: dict[str, str]) -> Logger:
    """Return a logger that writes curves to ``<folder>/curves/metrics.csv``."""
    return CSVLogger(folder, name="curves", version="")


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
    *, folder: Path, run_id: str, tags: dict[str, str], project: str, entity: str | None
) -> Logger:
    """Return a Weights & Biases logger; offline when there is neither key nor login.

    Args:
        folder: The run's folder.
        run_id: Id of the run.
        tags: Names of the task space: dataset, corruption, model, method.
        project: W&B project.
        entity: W&B team; None is the user's own.
    """
    import wandb  # slow to import, and only this logger needs it

    offline = "WANDB_MODE" not in os.environ and not _logged_in()
    if offline:
        log.info("W&B: no key found, recording offline; send later with: wandb sync %s", folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Lightning's own call of init passes an option that W&B warns about.
    run = wandb.init(
        dir=folder,
        project=project,
        entity=entity,
        name=" ".join(v for k, v in tags.items() if k in ("method", "corruption", "dataset")),
        group=tags.get("dataset"),
        job_type=tags.get("method", "train"),
        tags=[f"{k}={v}" for k, v in tags.items()],
        id=run_id,
        mode="offline" if offline else None,
        settings=wandb.Settings(silent=True),
    )
    return WandbLogger(experiment=run)


def close(logger: Logger) -> None:
    """Write everything out; a W&B run would else go on into the next job of this process."""
    logger.finalize("success")
    logger.save()
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb  # slow to import, and only this logger needs it
    from wandb.errors import Error

    try:
        return bool(wandb.login(prompt=False))
    except Error:
        return False
