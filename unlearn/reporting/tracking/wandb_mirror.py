"""Write-only mirror of tables and figures in Weights & Biases."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unlearn.reporting.tracking.run_tracking import log_files
from unlearn.training.loggers import close_logger, wandb_logger


def find_wandb_options(loggers: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the arguments of the W&B logger if the config has one.

    Raises:
        ValueError: If a logger does not support tables.
    """
    chosen = {name: dict(node) for name, node in (loggers or {}).items() if node}
    others = sorted(set(chosen) - {"wandb"})
    if others:
        raise ValueError(f"logger must be wandb or none for a summary, got {', '.join(others)}")
    node = chosen.get("wandb")
    return None if node is None else {k: v for k, v in node.items() if k != "_target_"}


def summary_id(run_ids: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Return an id of the rows and the summary's options."""
    text = repr((sorted(run_ids), sorted((k, str(v)) for k, v in settings.items())))
    return "s" + hashlib.sha256(text.encode()).hexdigest()[:12]


def mirror_report(
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Path],
    *,
    folder: Path,
    run_id: str,
    options: Mapping[str, Any],
    report: Path | None = None,
) -> None:
    """Log tables and figures to one run, offline when there is no key.

    Args:
        tables: By name.
        figures: PNG files by name.
        folder: Parent of W&B's own folder.
        run_id: Id of the run; the same rows give the same run.
        options: Options of ``wandb_logger``: project, entity, artifacts.
        report: The interactive report, logged as an artifact if ``artifacts``.
    """
    import wandb  # slow to import, and only this function needs it

    logger: Any = wandb_logger(folder=folder, run_id=run_id, tags={"method": "summary"}, **options)
    content: dict[str, Any] = {
        f"tables/{name}": wandb.Table(dataframe=_uniform_columns(table))
        for name, table in tables.items()
    }
    content |= {f"figures/{name}": wandb.Image(str(path)) for name, path in figures.items()}
    logger.experiment.log(content)
    if report is not None and options.get("artifacts"):
        log_files(logger.experiment, f"report-{run_id}", "report", [report], {"run_id": run_id})
    close_logger(logger)


def _uniform_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with one type per column: text, or numbers with NaN for missing values."""
    out = table.copy()
    for column in out:
        if not pd.api.types.is_numeric_dtype(out[column]):
            out[column] = out[column].fillna("").astype(str)
    return out
