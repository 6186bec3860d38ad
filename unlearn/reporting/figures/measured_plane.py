"""Figure of the task space with the measured regularity as vertical axis, one panel per method.

Cells are drawn at their measured place; a line encloses where the fitted product is below that of doing
nothing.
"""

import math

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearn.reporting.figures.canvas import new_figure
from unlearn.reporting.tables.measured_regularity import COLUMN
from unlearn.reporting.tables.regularity_fit import (
    VALUE,
    Surface,
    average_products,
    find_baseline,
    fit_methods,
)

STEPS = 41
"""Places per axis at which the line is computed."""


def draw_measured_plane(frame: pd.DataFrame) -> Figure:
    """Return one panel per method, the best mean first, all on the scale 0 to 1.

    Args:
        frame: Rows with the column ``measured_regularity``.

    Raises:
        ValueError: If the regularity of no row is known.
    """
    if COLUMN not in frame or frame[COLUMN].isna().all():
        raise ValueError(
            "figure=regularity needs rows of method=retrain at discovery=0.5 and discovery=1.0 for "
            "each corruption, from which its regularity is measured"
        )
    cells = average_products(frame)
    surfaces, idle = fit_methods(cells), find_baseline(cells)
    means = cells.groupby("method")[VALUE].mean().sort_values(ascending=False, kind="stable")
    across = min(3, len(means))
    down = -(-len(means) // across)
    fig = new_figure(3.4 * across + 0.9, 2.7 * down + 0.4)
    panels = fig.subplots(down, across, squeeze=False, sharex=True, sharey=True).flatten()
    bounds = cells[COLUMN].min(), cells[COLUMN].max()
    dots = None
    for axes, method in zip(panels, means.index, strict=False):
        own = cells[cells["method"] == method]
        dots = axes.scatter(
            own["discovery"], own[COLUMN], c=own[VALUE], vmin=0, vmax=1, cmap="viridis", marker="s",
            s=60, edgecolors="black", linewidths=0.4,
        )  # fmt: skip
        if idle in surfaces and method in surfaces and method != idle:
            _outline_losses(axes, surfaces[str(method)], surfaces[idle], bounds)
        name = str(method).replace("_", " ")
        axes.set_title(f"{name}   mean {means[method]:.2f}", fontsize=10, loc="left")
    for axes in panels[len(means) :]:
        axes.set_visible(False)
    if dots is not None:
        fig.colorbar(dots, ax=panels.tolist(), label="healed x utility", shrink=0.7)
    fig.supxlabel("discovery rate", fontsize=10)
    fig.supylabel("measured regularity", fontsize=10)
    return fig


def _outline_losses(
    axes: Axes, own: Surface, nothing: Surface, bounds: tuple[float, float]
) -> None:
    """Draw the line at which a method is as good as doing nothing, if the plane has one."""
    if math.isclose(*bounds):
        return
    x, y = np.meshgrid(np.linspace(0.1, 1, STEPS), np.linspace(*bounds, STEPS))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    gap = (own.predict(points)[0] - nothing.predict(points)[0]).reshape(x.shape)
    if gap.min() < 0 < gap.max():
        with mpl.rc_context({"contour.negative_linestyle": "solid"}):
            axes.contour(x, y, gap, levels=[0], colors="#c00000", linewidths=1.2)
