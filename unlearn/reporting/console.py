"""What jobs print: one run's row, or the summary of many."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from unlearn.reporting import formats, plots, tables
from unlearn.results.store import ResultsStore

log = logging.getLogger(__name__)

FIGURES = ("comparison", "demo", "heatmap", "none")


def line(row: Mapping[str, Any]) -> str:
    """Return the headline of one run."""
    parts = []
    for key, title in (("healed", "healed"), ("utility", "utility"), ("healed_utility", "product")):
        value = row.get(key)
        parts.append(f"{title} {'-' if value is None else f'{value:.3f}'}")
    return ", ".join([*parts, f"{row['seconds']:.1f} s"])


def print_row(row: Mapping[str, Any], title: str) -> None:
    """Print one run's columns."""
    Console().print(title)
    out = Table(show_header=False)
    for key, value in row.items():
        if value is None:
            failed = any(k.startswith("failed/") for k in row)
            text = "failed" if failed else "-"
        else:
            text = f"{value:.3f}" if isinstance(value, float) else str(value)
        out.add_row(key, text)
    Console().print(out)


def curves(store: ResultsStore, frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return the curves of the first run that has a base and a full network."""
    for run_id in frame["run_id"]:
        path = store.folder(run_id) / "curves" / "metrics.csv"
        if path.exists():
            values = pd.read_csv(path)
            if "base/hidden_accuracy_given" in values:
                return values
    return None


def report(config: Mapping[str, Any]) -> list[Path]:
    """Print the summary of all recorded rows and write tables and figure.

    Raises:
        ValueError: If there are no rows, or the figure's name is unknown.
    """
    if config["figure"] not in FIGURES:
        raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got {config['figure']}")
    store = ResultsStore(Path(config["paths"]["results"]))
    frame = store.load(**config["where"])
    if frame.empty:
        raise ValueError(f"no results in {store.root} for where={dict(config['where'])}")
    title = config["title"] or f"{len(frame)} runs, mean ± standard error over cells"
    summary = tables.summary(frame, by=config["by"])
    formats.print_table(summary, title)
    folder = Path(config["paths"]["reports"])
    paths = formats.save_tables(summary, folder / "summary")
    if config["figure"] != "none":
        draw = {
            "comparison": lambda: plots.comparison(frame),
            "demo": lambda: plots.demo(frame, curves(store, frame)),
            "heatmap": lambda: plots.heatmap(frame),
        }[config["figure"]]
        paths += plots.save(draw(), folder / config["figure"])
    for run_id, line in store.failures().items():
        log.warning("broken run %s: %s", store.folder(run_id), line)
    log.info("results: %s", store.mirror)
    log.info("tables and figures: %s", ", ".join(str(p) for p in paths))
    return paths
