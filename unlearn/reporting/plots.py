"""Figures; Agg through the object interface, so nothing depends on a display or global state."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unlearn.reporting.tables import cells, summary

HEALED, UTILITY, FULL = "#0072B2", "#E69F00", "#009E73"  # Okabe and Ito, safe for the colour-blind
REGULARITY = ("poison", "interclass_confusion", "random_label")


def figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches."""
    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def draw_comparison(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw healed and utility of each method as bars, the product as text."""
    table = summary(frame)[::-1].reset_index(drop=True)
    for offset, column, colour in ((0.2, "healed", HEALED), (-0.2, "utility", UTILITY)):
        errors = table[f"{column}_sem"].fillna(0)
        y = table.index + offset
        axes.barh(y, table[column], 0.38, xerr=errors, color=colour, label=column, capsize=2)
    for y, value in enumerate(table["healed_utility"]):
        axes.text(1.03, y, f"{value:.2f}", va="center", ha="left", fontweight="bold")
    axes.text(1.03, len(table) - 0.45, "healed\nx utility", va="bottom", ha="left", fontsize=8)
    axes.set_yticks(range(len(table)), table["method"])
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.1), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def draw_redirection(axes: Axes, curves: pd.DataFrame) -> None:
    """Draw what REM's two networks answer on hidden corrupted samples, epoch by epoch."""
    for name, colour, label in (
        ("full", FULL, "full network (new channels on)"),
        ("base", HEALED, "base network (to be deployed)"),
    ):
        column = f"{name}/hidden_accuracy_given"
        known = curves.dropna(subset=[column])
        axes.plot(known["epoch"], known[column], marker="o", ms=3, color=colour, label=label)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("epoch of removal and redirection")
    axes.set_ylabel("hidden samples still given the corrupted label")
    axes.legend(frameon=False, loc="center right")
    axes.spines[["top", "right"]].set_visible(False)


def comparison(frame: pd.DataFrame) -> Figure:
    """Return the bars of all methods."""
    fig = figure(6.5, 1.2 + 0.55 * frame["method"].nunique())
    draw_comparison(fig.add_subplot(), frame)
    return fig


def demo(frame: pd.DataFrame, curves: pd.DataFrame | None) -> Figure:
    """Return the bars of all methods beside REM's inside."""
    if curves is None or "base/hidden_accuracy_given" not in curves:
        return comparison(frame)
    fig = figure(11, 1.4 + 0.55 * frame["method"].nunique())
    left, right = fig.subplots(1, 2, width_ratios=(1.25, 1))
    draw_comparison(left, frame)
    draw_redirection(right, curves)
    right.set_title("inside REM", loc="left", fontsize=10)
    return fig


def heatmap(frame: pd.DataFrame, value: str = "healed_utility") -> Figure:
    """Return one panel per method: corruption (rows) by discovery rate (columns)."""
    table = cells(frame, value)
    methods = [m for m in summary(frame)["method"] if m in table.index]
    across = min(3, len(methods))
    down = -(-len(methods) // across)
    fig = figure(3.6 * across + 0.6, 2.0 * down + 0.5)
    panels = fig.subplots(down, across, squeeze=False).flatten()
    order = [c for c in REGULARITY if c in table.columns.get_level_values(0)]
    image = None
    for axes, method in zip(panels, methods, strict=False):
        grid = table.loc[method].unstack("discovery").reindex(order)
        image = axes.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_xticks(range(grid.shape[1]), [f"{d:g}" for d in grid.columns])
        axes.set_yticks(range(len(order)), [o.replace("_", "\n") for o in order], fontsize=8)
        axes.set_title(f"{method}   mean {table.loc[method].mean():.2f}", fontsize=10, loc="left")
        for i, row in enumerate(grid.to_numpy()):
            for j, cell in enumerate(row):
                colour = "white" if cell < 0.6 else "black"
                axes.text(j, i, f"{cell:.2f}", ha="center", va="center", color=colour, fontsize=8)
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
    if image is not None:
        fig.colorbar(image, ax=panels.tolist(), label=value.replace("_", " x "), shrink=0.8)
    fig.supxlabel("discovery rate", fontsize=10)
    return fig


def save(fig: Figure, stem: Path) -> list[Path]:
    """Write PNG and PDF and return the paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix in (".png", ".pdf"):
        path = stem.with_suffix(suffix)
        part = path.with_name(f".{path.stem}.part{suffix}")
        fig.savefig(part, dpi=150)
        part.replace(path)
        paths.append(path)
    return paths
