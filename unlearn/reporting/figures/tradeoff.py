"""Figures with one mark per method: utility against healed, and the worst cell."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from unlearn.reporting.figures.canvas import new_figure
from unlearn.reporting.figures.planes import COLOURS
from unlearn.reporting.tables.summary import summarize_methods, summarize_metrics

GREY = "#888888"
DIRECTIONS = 8  # possible positions of a label, nearest ring first


def draw_tradeoff(frame: pd.DataFrame) -> Figure:
    """Return utility against healed, one point per method with standard errors over cells.

    Args:
        frame: Rows, prepared.
    """
    table = summarize_metrics(frame).dropna(subset=["healed", "utility"]).reset_index(drop=True)
    fig = new_figure(7.5, 5.6)
    axes = fig.add_subplot()
    lowest = float((table["utility"] - table["utility_sem"].fillna(0)).min()) if len(table) else 0
    bottom = max(0.0, min(0.9, np.floor((lowest - 0.03) * 20) / 20))
    _draw_products(axes, bottom)
    points = table[["healed", "utility"]].to_numpy(float)
    errors = table[["healed_sem", "utility_sem"]].to_numpy(float)
    for (x, y), known, colour in zip(points, errors, COLOURS * 3, strict=False):
        wide, high = (None if np.isnan(e) else float(e) for e in known)  # one cell has no error
        axes.errorbar(
            x, y, yerr=high, xerr=wide, fmt="o", ms=6, color=colour, elinewidth=1, capsize=2
        )
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(bottom, 1.01)
    axes.set_xlabel("healed: corrupted samples classified correctly")
    axes.set_ylabel("utility: accuracy on clean test data")
    axes.spines[["top", "right"]].set_visible(False)
    names = [str(m).replace("_", " ") for m in table["method"]]
    place_labels(axes, points, np.nan_to_num(errors), names)
    return fig


def _draw_products(axes: Axes, bottom: float) -> None:
    """Draw lines of equal healed x utility."""
    x = np.linspace(0.01, 1.03, 2000)
    for product in (0.2, 0.4, 0.6, 0.8):
        y = product / x
        inside = (y <= 1.01) & (y >= bottom)
        axes.plot(x[inside], y[inside], color="#dddddd", linewidth=0.8, zorder=0)
        axes.text(product, 1.012, f"{product:g}", fontsize=7, color=GREY, ha="center", va="bottom")
    axes.text(1.03, 1.012, "healed x utility", fontsize=7, color=GREY, ha="right", va="bottom")


def place_labels(
    axes: Axes, points: np.ndarray, errors: np.ndarray, names: list[str]
) -> list[Annotation]:
    """Place labels next to points without overlap; distant ones get a line.

    Args:
        axes: With its limits set.
        points: Data coordinates (n, 2).
        errors: Half the lengths of their error bars (n, 2), also kept free.
        names: One per point.
    """
    fig = axes.get_figure(root=True)
    assert fig is not None
    fig.draw_without_rendering()  # fix the layout before measuring pixels
    pixel = fig.dpi / 72
    taken = _occupied_boxes(axes, points, errors, 5 * pixel)
    made = []
    for point, name in zip(points, names, strict=True):
        style = {"textcoords": "offset points", "fontsize": 8, "ha": "center", "va": "center"}
        note = axes.annotate(name, point, (0, 0), **style)
        size = note.get_window_extent()
        options = list(_label_offsets(size.width, size.height, pixel))
        boxes = [_label_box(axes.transData.transform(point) + o, size) for o in options]
        k = _first_free(boxes, taken, axes.get_window_extent())
        taken.append(boxes[k])
        note.set_position(tuple(options[k] / pixel))
        if k >= DIRECTIONS:  # beyond the first ring
            note.remove()
            line = {"arrowstyle": "-", "color": GREY, "lw": 0.6, "shrinkA": 0, "shrinkB": 3}
            note = axes.annotate(name, point, tuple(options[k] / pixel), arrowprops=line, **style)
        made.append(note)
    return made


def _occupied_boxes(
    axes: Axes, points: np.ndarray, errors: np.ndarray, radius: float
) -> list[Bbox]:
    """Return the boxes of marks and error bars in pixels."""
    boxes = []
    for point, error in zip(points, errors, strict=True):
        for reach in ((0.0, 0.0), (error[0], 0.0), (0.0, error[1])):
            low, high = axes.transData.transform([point - reach, point + reach])
            margin = 2 if any(reach) else radius
            boxes.append(Bbox([low - margin, high + margin]))
    return boxes


def _first_free(boxes: list[Bbox], taken: list[Bbox], bounds: Bbox) -> int:
    """Return the first box inside the bounds without overlap, else the last box."""
    for k, box in enumerate(boxes):
        inside = bounds.containsx(box.x0) and bounds.containsx(box.x1)
        inside &= bounds.containsy(box.y0) and bounds.containsy(box.y1)
        if inside and not box.count_overlaps(taken):
            return k
    return len(boxes) - 1


def _label_offsets(width: float, height: float, pixel: float) -> Iterator[np.ndarray]:
    """Yield possible offsets of a label's centre in pixels, nearest ring first."""
    for ring in range(24):
        gap = (7 + 7 * ring) * pixel
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            yield np.array([x * (width / 2 + gap), y * (height / 2 + gap)])


def _label_box(centre: np.ndarray, size: Bbox) -> Bbox:
    half = np.array([size.width, size.height]) / 2
    return Bbox([centre - half - 1, centre + half + 1])


def worst_bars(frame: pd.DataFrame) -> Figure:
    """Return each method's lowest cell (mean over seeds) as a bar, its mean as a mark.

    Args:
        frame: Rows of many tasks, prepared.
    """
    table = summarize_methods(frame).sort_values("worst", na_position="first", ignore_index=True)
    fig = new_figure(7.0, 1.1 + 0.32 * len(table))
    axes = fig.add_subplot()
    axes.barh(table.index, table["worst"].fillna(0), 0.6, color="#0072B2", label="worst task")
    axes.plot(table["healed_utility"], table.index, "D", ms=5, color="#E69F00", label="mean")
    for y, row in table.iterrows():
        worst = row["worst"]
        text = "failed" if np.isnan(worst) else f"{worst:.2f}   {row['worst_cell']}"
        axes.text(1.03, float(str(y)), text, va="center", ha="left", fontsize=8)
    axes.set_yticks(range(len(table)), [str(m).replace("_", " ") for m in table["method"]])
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel("healed x utility, mean over seeds")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return fig
