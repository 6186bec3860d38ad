"""The available figures, and the choice of those that the rows support."""

import logging
from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from unlearn.reporting.figures import (
    localization,
    measured_plane,
    method_bars,
    planes,
    tradeoff,
)
from unlearn.reporting.figures import refined as refined_figures
from unlearn.reporting.tables import measured_regularity as measured
from unlearn.reporting.tables import refined
from unlearn.reporting.tables.frames import TASK, existing_columns, on_plane
from unlearn.reporting.tables.memorized import has_nothing
from unlearn.reporting.tables.summary import summarize_metrics
from unlearn.storage.results_store import ResultsStore

log = logging.getLogger(__name__)

Figures = dict[str, Figure]
"""By the stem of the file."""

CURVES = ("epoch", f"base/{method_bars.HIDDEN}", f"full/{method_bars.HIDDEN}")
MAKERS: dict[str, Callable[[pd.DataFrame, pd.DataFrame | None], Figures]] = {
    "comparison": lambda frame, _: {"comparison": method_bars.draw_comparison(frame)},
    "corruptions": lambda frame, _: {"corruptions": method_bars.draw_corruptions(frame)},
    "demo": lambda frame, curves: {"demo": method_bars.draw_demo(frame, curves)},
    "heatmap": lambda frame, _: planes.draw_heatmaps(frame),
    "winners": lambda frame, _: {"winners": planes.winner_map(frame)},
    "regularity": lambda frame, _: {"regularity_plane": measured_plane.draw_measured_plane(frame)},
    "tradeoff": lambda frame, _: {"tradeoff": tradeoff.draw_tradeoff(frame)},
    "worst": lambda frame, _: {"worst": tradeoff.worst_bars(frame)},
    "redirection": lambda _, curves: _draw_redirection(curves),
    "localization": lambda frame, _: localization.draw_localization(frame),
    "sequence": lambda frame, _: {"sequence": refined_figures.draw_sequence(frame)},
    "closeness": lambda frame, _: {"closeness": refined_figures.draw_closeness(frame)},
}
MAPS = ("heatmap", "winners", "regularity")
MARKING = ("heatmap", "redirection", "closeness", "sequence")
"""Figures that show cells with nothing to unlearn, or no means of healing."""
PLANE = ("heatmap", "winners", "tradeoff", "worst")
NAMES = (*MAKERS, "auto", "all", "none")


def _draw_redirection(curves: pd.DataFrame | None) -> Figures:
    if curves is None:
        raise ValueError(
            "figure=redirection needs curves of a REM run; record them with logger=csv"
        )
    return {"redirection": method_bars.draw_redirection(curves)}


def read_curves(store: ResultsStore, run_id: str) -> pd.DataFrame:
    """Return the curves of a run, numbers; empty if none are recorded or the file is broken."""
    path = store.run_folder(run_id) / "curves" / "metrics.csv"
    if not path.exists():
        return pd.DataFrame()
    try:
        return pd.read_csv(path).astype(float)
    except (OSError, ValueError) as error:
        log.warning("skipped broken curves %s (%s)", path, " ".join(str(error).split())[:200])
        return pd.DataFrame()


def curve_end(store: ResultsStore, run_id: str, name: str, end: str) -> float:
    """Return a curve's first or last value; NaN if it was not recorded.

    Raises:
        ValueError: If ``end`` is neither.
    """
    if end not in ("first", "last"):
        raise ValueError(f"a curve's column must end in /first or /last, got {end}")
    curves = read_curves(store, run_id)
    known = curves[name].dropna() if name in curves else pd.Series(dtype=float)
    return float(known.iloc[0 if end == "first" else -1]) if len(known) else float("nan")


def redirection_curves(store: ResultsStore, frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return the curves of the best method that has a base and a full network, all runs.

    Returns:
        The curves of all its runs one below the other, with columns ``run_id``, ``corruption`` and ``regularity``;
        None if there are none.
    """
    for method in summarize_metrics(frame)["method"]:
        parts = []
        for _, row in frame[frame["method"] == method].drop_duplicates("run_id").iterrows():
            values = read_curves(store, str(row["run_id"]))
            if set(CURVES) <= set(values):
                own = {key: row.get(key) for key in ("run_id", "corruption", "regularity")}
                parts.append(values[list(CURVES)].assign(**own))
        if parts:
            return pd.concat(parts, ignore_index=True)
    return None


def choose_figures(name: str, frame: pd.DataFrame, curves: pd.DataFrame | None) -> tuple[str, ...]:
    """Return the names of the figures to draw.

    Args:
        name: One of ``NAMES``; "auto": bars for one task, else figures of the task space;
            "all": every figure that the rows support.
        frame: Rows, prepared.
        curves: From ``redirection_curves``.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in NAMES:
        raise ValueError(f"figure must be one of {', '.join(NAMES)}, got {name}")
    inside = () if curves is None else ("redirection",)
    plain = refined.is_uncorrupted(frame)
    if name in ("auto", "all") and plain.any():
        rest = frame[~plain]
        more = () if rest.empty else choose_figures(name, rest, curves)
        return (*more, *_refined_figures(frame[plain]))
    several = len(on_plane(frame)[existing_columns(frame, TASK)].drop_duplicates()) > 1
    if name == "auto":
        return (*PLANE, *inside) if several else ("comparison", *inside)
    if name == "all":
        known = measured.COLUMN in frame and frame[measured.COLUMN].nunique() > 1
        return ("comparison", *PLANE, *(("regularity",) if known else ()), *inside)
    return () if name == "none" else (name,)


def _refined_figures(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the figures that rows of uncorrupted data support."""
    if "tow" not in frame or frame["tow"].isna().all():
        return ()
    return ("closeness", "sequence") if frame["step"].max() > 0 else ("closeness",)


def draw_figures(name: str, frame: pd.DataFrame, curves: pd.DataFrame | None) -> Figures:
    """Return the figures of a choice by the stem of their files.

    Raises:
        ValueError: If the name is unknown or the rows do not support the figure.
    """
    out: Figures = {}
    for each in choose_figures(name, frame, curves):
        healing = each not in ("closeness", "sequence", name)  # chosen for the corrupted rows
        rows = frame[~refined.is_uncorrupted(frame)] if healing else frame
        if each not in MARKING:
            rows = rows[~has_nothing(rows)]
            if rows.empty:
                log.warning("figure=%s: no cell with anything to unlearn", each)
                continue
        out |= MAKERS[each](on_plane(rows) if each in MAPS else rows, curves)
    return out
