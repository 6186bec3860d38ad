"""Figures; Agg through the object interface, so nothing depends on a display or global state."""

import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unlearn.reporting.tables import TITLES, cells, summary

HEALED, UTILITY, FULL = "#0072B2", "#E69F00", "#009E73"  # Okabe and Ito, safe for the colour-blind
REGULARITY = ("poison", "interclass_confusion", "random_label")
HIDDEN = "hidden_accuracy_given"  # curves: hidden samples that still get the corrupted label


def figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches."""
    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def draw_comparison(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw healed and utility of each method as bars, the product as text; best on top.

    Args:
        axes: To draw on.
        frame: Rows of one task; the error bars are standard errors over its seeds.
    """
    table = summary(frame)[::-1].reset_index(drop=True)
    bars = {"elinewidth": 1.2, "capsize": 2.5, "ecolor": "#222222"}
    for offset, column, colour in ((0.2, "healed", HEALED), (-0.2, "utility", UTILITY)):
        y = table.index + offset
        axes.barh(y, table[column], 0.38, color=colour, label=column)
        known = table[table[f"{column}_sem"].notna()]  # one seed has no error, not one of 0
        if len(known):
            at = known.index + offset
            axes.errorbar(known[column], at, xerr=known[f"{column}_sem"], fmt="none", **bars)
    for y, row in table.iterrows():
        axes.text(1.04, float(str(y)), _product(row), va="center", ha="left", fontsize=9)
    axes.text(1.04, len(table) - 0.45, "healed\nx utility", va="bottom", ha="left", fontsize=8)
    axes.set_yticks(range(len(table)), [str(m).replace("_", " ") for m in table["method"]])
    axes.set_ylim(-0.55, len(table) - 0.45)
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _product(row: pd.Series) -> str:
    value, error = row["healed_utility"], row["healed_utility_sem"]
    if pd.isna(value):
        return "-"
    text = f"{value:.2f}" if pd.isna(error) else f"{value:.2f} ± {error:.2f}"
    return text + (" (collapsed)" if row["collapsed"] == row["n"] else "")


def draw_redirection(axes: Axes, curves: pd.DataFrame) -> None:
    """Draw what REM's two networks answer on hidden corrupted samples, epoch by epoch.

    Args:
        axes: To draw on.
        curves: Columns epoch, base/hidden_accuracy_given, full/hidden_accuracy_given in [0, 1].

    Raises:
        ValueError: If a column is absent.
    """
    missing = [c for c in ("epoch", f"base/{HIDDEN}", f"full/{HIDDEN}") if c not in curves]
    if missing:
        raise ValueError(f"the curves have no columns {', '.join(missing)}")
    for name, colour, marker, label in (
        ("full", FULL, "s", "full network (new channels on)"),
        ("base", HEALED, "o", "base network (to be deployed)"),
    ):
        known = curves.dropna(subset=[f"{name}/{HIDDEN}"])
        x, y = known["epoch"], known[f"{name}/{HIDDEN}"]
        axes.plot(x, y, marker=marker, ms=4, color=colour, label=label)
    axes.set_ylim(-0.03, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch of removal and redirection")
    axes.set_ylabel("hidden samples that still\nget the corrupted label")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def comparison(frame: pd.DataFrame) -> Figure:
    """Return the bars of all methods on one task."""
    fig = figure(6.5, 1.4 + 0.5 * frame["method"].nunique())
    draw_comparison(fig.add_subplot(), frame)
    return fig


def redirection(curves: pd.DataFrame) -> Figure:
    """Return REM's inside: hidden corrupted samples in the base and in the full network."""
    fig = figure(5.0, 3.6)
    draw_redirection(fig.add_subplot(), curves)
    return fig


def demo(frame: pd.DataFrame, curves: pd.DataFrame | None) -> Figure:
    """Return the bars of all methods beside REM's inside, or the bars if there are no curves."""
    if curves is None or f"base/{HIDDEN}" not in curves:
        return comparison(frame)
    fig = figure(11, max(3.6, 1.4 + 0.5 * frame["method"].nunique()))
    left, right = fig.subplots(1, 2, width_ratios=(1.25, 1))
    draw_comparison(left, frame)
    draw_redirection(right, curves)
    fig.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr]
    return fig


def heatmap(frame: pd.DataFrame, value: str = "healed_utility") -> Figure:
    """Return one panel per method: corruption (rows) by discovery rate (columns).

    Args:
        frame: Rows of many tasks.
        value: Column to average over seeds, in [0, 1].
    """
    table = cells(frame, value)
    methods = list(summary(frame)["method"])
    across = min(3, len(methods))
    down = -(-len(methods) // across)
    fig = figure(3.6 * across + 0.6, 2.0 * down + 0.5)
    panels = fig.subplots(down, across, squeeze=False).flatten()
    found = table.columns.get_level_values(0).unique()
    order = [c for c in REGULARITY if c in found] + [c for c in found if c not in REGULARITY]
    rates = sorted(table.columns.get_level_values(1).unique())
    image = None
    for axes, method in zip(panels, methods, strict=False):
        grid = table.loc[method].unstack("discovery").reindex(index=order, columns=rates)
        image = axes.imshow(grid.to_numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_xticks(range(len(rates)), [f"{d:g}" for d in rates])
        axes.set_yticks(range(len(order)), [o.replace("_", "\n") for o in order], fontsize=8)
        known = grid.to_numpy(float)[grid.notna().to_numpy()]
        text = f"mean {known.mean():.2f}" if len(known) else "failed"
        title = f"{str(method).replace('_', ' ')}   {text}"
        axes.set_title(title, fontsize=10, loc="left")
        _write_cells(axes, grid)
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
    if image is not None:
        label = TITLES.get(value, value.replace("_", " "))
        fig.colorbar(image, ax=panels.tolist(), label=label, shrink=0.8)
    fig.supxlabel("discovery rate", fontsize=10)
    return fig


def _write_cells(axes: Axes, grid: pd.DataFrame) -> None:
    small = 8 if grid.shape[1] <= 6 else 6
    for (i, j), cell in np.ndenumerate(grid.to_numpy(float)):
        text = "-" if np.isnan(cell) else f"{cell:.2f}"
        colour = "white" if cell < 0.6 else "black"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=small)


def save(fig: Figure, stem: Path) -> list[Path]:
    """Write PNG and PDF, each by rename.

    Args:
        fig: The figure.
        stem: Path without suffix.

    Returns:
        The paths.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, metadata in ((".png", {}), (".pdf", {"CreationDate": None})):
        path = stem.with_name(stem.name + suffix)
        part = path.with_name(f".{stem.name}.{os.getpid()}.part{suffix}")
        with mpl.rc_context({"pdf.fonttype": 42}):  # venues refuse the default, Type 3
            fig.savefig(part, dpi=150, metadata=metadata)
        os.replace(part, path)
        paths.append(path)
    return paths
