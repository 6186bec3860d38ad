"""Compute and compare memorization scores: agreement with one of them, and cost."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from unlearn.core.job import Job
from unlearn.pipeline.context import RunContext, load_context
from unlearn.pipeline.sample_scores import compute_sample_scores
from unlearn.reporting.figures import canvas, refined
from unlearn.reporting.tables import claims, formats
from unlearn.scoring.memorization.agreement import (
    group_overlap,
    kendall_correlation,
    spearman_correlation,
)

log = logging.getLogger(__name__)

GROUP_FRACTION = 1 / 15
"""Size of the low, mid and high groups: 3,000 of 45,000 (arXiv 2406.01257)."""


def score_job(job: Job) -> float | None:
    """Compute the job's scores or load them from the cache; write table, values and figure.

    Raises:
        ValueError: If there are fewer than two.
    """
    nodes: dict[str, Any] = job.config["compare_scores"]
    if len(nodes) < 2:
        raise ValueError(f"compare_scores must be at least two to compare, got {list(nodes)}")
    context = load_context(job, forget=False)
    reference = "memorization" if "memorization" in nodes else next(iter(nodes))
    found = {name: compute_sample_scores(context, node) for name, node in nodes.items()}
    values = {name: trained.records["score"] for name, (trained, _) in found.items()}
    notes = {name: trained.notes for name, (trained, _) in found.items()}
    centers = {name: score.center for name, (_, score) in found.items()}
    rows = [
        _score_row(name, values, centers, reference) | _cost_row(name, notes, reference)
        for name in values
    ]
    table = pd.DataFrame(rows)
    text = table.map(lambda v: f"{v:.3g}" if isinstance(v, float) else v)
    text.attrs["n"] = "samples"
    title = f"memorization scores compared with {reference}, {len(values[reference])} samples"
    formats.print_table(text, title)
    folder = Path(job.config["paths"]["reports"])
    formats.save_tables(text, folder / "scores")
    _write_scores(context, values, folder / "score_values.csv")
    _compare_with_claims(table, job.config, folder)
    rank = {row["score"]: float(row["Spearman"]) for row in rows}
    figure = refined.draw_scores_against({k: v.numpy() for k, v in values.items()}, reference, rank)
    canvas.save_figure(figure, folder / "scores")
    log.info("in %s: scores, score_values.csv", folder)
    return None


def _compare_with_claims(table: pd.DataFrame, config: Mapping[str, Any], folder: Path) -> None:
    """Print and write the published claims about scores, if there are any: the score is the method."""
    wanted = [claim for node in config["expected"] for claim in claims.parse_claims(node)]
    if not wanted:
        return
    frame = table.rename(columns={"score": "method"}).assign(seed=config["seed"], status="ok")
    found = claims.compare_claims(frame, wanted)
    title = config["title"] or "published claims and measured values"
    formats.print_table(found.drop(columns="source"), title)
    formats.print_notes([claims.count_verdicts(found)])
    formats.save_tables(found, folder / "claims", latex=False)


def _score_row(
    name: str, values: dict[str, Tensor], centers: dict[str, str | float], reference: str
) -> dict[str, Any]:
    mine, other = values[name], values[reference]
    size = max(1, round(GROUP_FRACTION * len(mine)))
    shared = group_overlap(mine, other, size, (centers[name], centers[reference]))
    row = {"score": name, "n": len(mine)}
    row |= {
        "Spearman": spearman_correlation(mine, other),
        "Kendall": kendall_correlation(mine, other),
    }
    return row | {f"{group} shared": share for group, share in shared.items()}


def _cost_row(name: str, notes: dict[str, dict[str, Any]], reference: str) -> dict[str, Any]:
    seconds = float(notes[name]["seconds"])
    return {
        "seconds": seconds,
        "% of training": 100 * seconds / notes[name]["original_seconds"],
        f"% of {reference}": 100 * seconds / notes[reference]["seconds"],
        "reliability": notes[name].get("reliability", "-"),
    }


def _write_scores(context: RunContext, values: dict[str, Tensor], path: Path) -> None:
    """Write the scores sample by sample."""
    label = context.task.train.label.cpu().numpy()
    frame = pd.DataFrame({"label": label, **{k: v.numpy() for k, v in values.items()}})
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index_label="index")
