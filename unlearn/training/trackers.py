"""Loggers of experiment trackers beside W&B: MLflow, by Lightning's own class, and trackio."""

import contextlib
import importlib
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.logger import (
    _convert_params,  # pyright: ignore[reportPrivateUsage]
    _flatten_dict,  # pyright: ignore[reportPrivateUsage]
)
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, MLFlowLogger

from unlearn.training.engine import silence_lightning

NAME = ("method", "corruption", "discovery", "dataset", "seed")  # parts of a run's name


def name_run(tags: Mapping[str, str]) -> str:
    """Return the name of a run in a tracker: method, corruption, discovery, dataset, seed."""
    return " ".join(tags[key] for key in NAME if key in tags)


def mlflow_logger(
    *,
    folder: Path,
    run_id: str,
    tags: dict[str, str],
    experiment: str,
    tracking_uri: str,
) -> Logger:
    """Return an MLflow logger whose run has the tags of the job and its run id.

    Args:
        folder: The run's folder.
        run_id: Id of the run; MLflow gives its own, this is the tag ``run_id``.
        tags: Tags of the run: dataset, corruption, model, method.
        experiment: MLflow experiment.
        tracking_uri: Store: the URL of a server, ``sqlite:///<file>`` or ``file:<folder>``.

    Raises:
        ValueError: If the package is not installed, or the store cannot be opened.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    try:
        refused: type[Exception] = importlib.import_module("mlflow.exceptions").MlflowException
    except ModuleNotFoundError as error:
        raise ValueError(
            "logger=mlflow needs the package mlflow: pip install 'unlearn-bench[mlflow]'"
        ) from error
    if tracking_uri.startswith("sqlite:///"):
        Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    for name in ("mlflow", "alembic"):  # a new store is announced table by table
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with silence_lightning():
            logger = MLFlowLogger(
                experiment_name=experiment,
                run_name=name_run(tags),
                tracking_uri=tracking_uri,
                tags={**tags, "run_id": run_id},
            )
            try:
                _ = logger.experiment
            except refused:  # another process has created the experiment meanwhile
                _ = logger.experiment
    except (refused, OSError) as error:
        line = " ".join(str(error).split())
        raise ValueError(f"logger.mlflow.tracking_uri={tracking_uri}: {line:.200}") from error
    return logger


class TrackioLogger(Logger):
    """Writes to trackio; a run stays open until ``close``, as a job trains more than once."""

    def __init__(
        self, project: str, name: str, group: str | None, config: Mapping[str, Any]
    ) -> None:
        """Open a run.

        Args:
            project: trackio project.
            name: Name of the run.
            group: Group of the run.
            config: First entries of its config.
        """
        super().__init__()
        trackio = importlib.import_module("trackio")  # slow, and only this logger needs it

        self._project = project
        with _hide_output():
            self._run = trackio.init(
                project, name=name, group=group, config=dict(config), embed=False,
                auto_log_cpu=False, auto_log_gpu=False,
            )  # fmt: skip
        trackio.context_vars.current_run.set(None)  # else the next run would end this one

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return the trackio run."""
        return self._run

    @property
    def name(self) -> str:
        """Return the project."""
        return self._project

    @property
    def version(self) -> str:
        """Return the name of the run."""
        return self._run.name

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values at a step."""
        with _hide_output():
            self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Add a flattened config to the run's; trackio stores it with the first values."""
        self._run.config.update(_flatten_dict(_convert_params(params)))

    @rank_zero_only
    def close(self) -> None:
        """Write what is pending and end the run."""
        with _hide_output():
            self._run.finish()


def trackio_logger(*, folder: Path, run_id: str, tags: dict[str, str], project: str) -> Logger:
    """Return a trackio logger; ``TRACKIO_DIR``, ``TRACKIO_SPACE_ID``, ... say where it writes.

    Args:
        folder: The run's folder.
        run_id: Id of the run, an entry of its config.
        tags: Tags of the run: dataset, corruption, model, method.
        project: trackio project.

    Raises:
        ValueError: If the package is not installed.
    """
    try:
        return TrackioLogger(
            project, name_run(tags), tags.get("dataset"), {**tags, "run_id": run_id}
        )
    except ModuleNotFoundError as error:
        raise ValueError(
            "logger=trackio needs the package trackio: pip install 'unlearn-bench[trackio]'"
        ) from error


def _hide_output() -> contextlib.AbstractContextManager[Any]:
    """Suppress what trackio prints to standard output for each run."""
    return contextlib.redirect_stdout(io.StringIO())
