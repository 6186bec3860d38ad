"""Figures of the task space: regularity of the corruption (rows) by discovery rate (columns).

The layout follows arXiv 2505.17730: the most regular corruption on top, one scale for all methods.
"""

import textwrap
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from unlearn.reporting.figures.canvas import file_name, new_figure
from unlearn.reporting.tables.facts import is_upper_bound, order_corruptions, regularity_levels
from unlearn.reporting.tables.frames import by_cell
from unlearn.reporting.tables.memorized import LEAST, NOTHING, has_nothing
from unlearn.reporting.tables.summary import TITLES, average_cells, summarize_metrics
from unlearn.reporting.tables.trusted import is_trusted

PAGE = 12  # methods per page of the overview
COLOURS = (*mpl.color_sequences["tab10"], *mpl.color_sequences["Dark2"])  # strong colours
UNKNOWN = "#e6e6e6"  # a cell that failed or was not run


def _row_names(order: list[str], levels: Mapping[str, str]) -> list[str]:
    def name_level(name: str) -> str:
        return f"\n({levels[name]})" if name in levels else ""

    return [textwrap.fill(o.replace("_", " "), 11) + name_level(o) for o in order]


def draw_heatmaps(frame: pd.DataFrame, value: str = "healed_utility") -> dict[str, Figure]:
    """Return the overview in pages of ``PAGE`` methods, and one figure per method, by stem."""
    methods = [str(m) for m in summarize_metrics(frame)["method"]]
    pages = [methods[i : i + PAGE] for i in range(0, len(methods), PAGE)]
    out = {f"heatmap{f'_{i}' if i > 1 else ''}": page for i, page in enumerate(pages, 1)}
    if len(methods) > 1:
        out |= {f"heatmap_{file_name(method)}": [method] for method in methods}
    return {stem: draw_heatmap(frame, value, chosen) for stem, chosen in out.items()}


def draw_heatmap(
    frame: pd.DataFrame, value: str = "healed_utility", methods: list[str] | None = None
) -> Figure:
    """Return one panel per method, best first, all on the scale 0 to 1.

    Args:
        frame: Rows of many tasks, prepared.
        value: Column to average over seeds, in [0, 1].
        methods: To draw; None: all.
    """
    table, levels = average_cells(frame, value), regularity_levels(frame)
    methods = methods or [str(m) for m in summarize_metrics(frame)["method"]]
    order = order_corruptions(table.columns.get_level_values(0), levels)
    rates = sorted(table.columns.get_level_values(1).unique())
    across = min(3 if len(rates) <= 5 else 2, len(methods))
    down = -(-len(methods) // across)
    width = max(2.6, 0.46 * len(rates)) + 1.1
    fig = new_figure(width * across + 0.9, (0.5 * len(order) + 0.65) * down + 0.5)
    panels = fig.subplots(down, across, squeeze=False).flatten()
    colours = mpl.colormaps["viridis"].with_extremes(bad=UNKNOWN)
    image = None
    for axes, method in zip(panels, methods, strict=False):
        grid = table.loc[method].unstack("discovery")
        grid = pd.DataFrame(grid).reindex(index=order, columns=rates)
        values = np.ma.masked_invalid(grid.to_numpy(float))
        counted = ~_mark_cells(axes, frame, method, grid)
        image = axes.imshow(values, vmin=0, vmax=1, cmap=colours, aspect="auto")
        _label_plane(axes, order, rates, levels if len(methods) == 1 else {})
        known = values[counted].compressed()
        text = f"mean {known.mean():.2f}" if len(known) else "failed"
        axes.set_title(f"{method.replace('_', ' ')}   {text}", fontsize=10, loc="left")
        _write_cells(axes, grid)
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
    if image is not None:
        label = TITLES.get(value, value.replace("_", " "))
        share = min(1.0, 3.2 / fig.get_size_inches()[1])
        fig.colorbar(image, ax=panels.tolist(), label=label, shrink=max(share, 0.35))
    marked = bool(has_nothing(frame).any())
    note = f"   (hatched: {NOTHING}, memorized < {LEAST:g}; not in means)" if marked else ""
    fig.supxlabel(f"discovery rate{note}", fontsize=10)
    return fig


def _mark_cells(axes: Axes, frame: pd.DataFrame, method: str, grid: pd.DataFrame) -> np.ndarray:
    """Hatch the cells of a grid with nothing to unlearn; return which they are, as ``grid``."""
    own = frame[(frame["method"] == method) & has_nothing(frame)]
    cells = set(zip(own["corruption"], own["discovery"], strict=True))
    marked = np.array([[(row, rate) in cells for rate in grid] for row in grid.index], dtype=bool)
    for i, j in np.argwhere(marked):
        axes.add_patch(
            Rectangle(
                (j - 0.5, i - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#ffffff90", lw=0
            )
        )
    return marked.reshape(grid.shape)


def _label_plane(
    axes: Axes, order: list[str], rates: list[float], levels: Mapping[str, str]
) -> None:
    axes.set_xticks(range(len(rates)), [f"{d:g}" for d in rates], fontsize=8)
    axes.set_yticks(range(len(order)), _row_names(order, levels), fontsize=8)
    axes.tick_params(length=0)


def _write_cells(axes: Axes, grid: pd.DataFrame) -> None:
    for (i, j), cell in np.ndenumerate(grid.to_numpy(float)):
        text = "-" if np.isnan(cell) else f"{cell:.2f}"
        colour = "white" if cell < 0.6 else "black"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)


def find_winners(frame: pd.DataFrame, value: str = "healed_utility") -> pd.DataFrame:
    """Return the best method of each cell, and how often it wins.

    Oracles, methods with a trusted set and cells with nothing to unlearn are excluded.

    Args:
        frame: Rows, prepared.
        value: Column to compare, averaged over seeds.

    Returns:
        Indexed by corruption and discovery rate: ``winner``; ``mean``; ``won``, the number of seeds
        in which no other is better; ``seeds``, those in which the winner ran.
    """
    own = frame[~is_upper_bound(frame) & ~is_trusted(frame) & ~has_nothing(frame)]
    table = by_cell(own, value).dropna(how="all")
    rows = {}
    for task, seeds in table.groupby(level=["corruption", "discovery"]):
        means = seeds.mean()
        if means.isna().all():
            continue
        best = means.idxmax()
        known = seeds[seeds[best].notna()]
        won = int((known[best] >= known.max(axis=1)).sum())
        rows[task] = {"winner": best, "mean": means.max(), "won": won, "seeds": len(known)}
    return pd.DataFrame.from_dict(rows, orient="index")


def winner_map(frame: pd.DataFrame, value: str = "healed_utility") -> Figure:
    """Return the task space with each cell's best method: name, mean, seeds won; paler if fewer.

    Args:
        frame: Rows of many tasks, prepared.
        value: Column that decides, by its mean over seeds.
    """
    best = find_winners(frame, value)
    levels = regularity_levels(frame)
    order = order_corruptions(frame["corruption"], levels)
    rates = sorted(frame["discovery"].dropna().unique())
    counts = best["winner"].value_counts()
    colours = dict(zip(counts.index, COLOURS * 3, strict=False))
    fig = new_figure(max(6.0, 1.05 * len(rates) + 1.6), 0.85 * len(order) + 1.3)
    axes = fig.add_subplot()
    image = np.full((len(order), len(rates), 3), to_rgb(UNKNOWN))
    for key, cell in best.iterrows():
        corruption, rate = key  # type: ignore[misc]
        i, j = order.index(corruption), rates.index(rate)
        sure = 0.3 + 0.6 * cell["won"] / cell["seeds"]
        image[i, j] = 1 - sure * (1 - np.asarray(to_rgb(colours[cell["winner"]])))
        name = textwrap.fill(str(cell["winner"]).replace("_", " ").replace("(", " ("), 12)
        text = f"{name}\n{cell['mean']:.2f}, {cell['won']}/{cell['seeds']}"
        axes.text(j, i, text, ha="center", va="center", fontsize=8)
    axes.imshow(image, aspect="auto")
    _label_plane(axes, order, rates, levels)
    axes.set_xticks(np.arange(len(rates) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(order) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("discovery rate")
    tally = [
        f"{m} {n}".replace("_", " ").replace(" ", "\N{NO-BREAK SPACE}") for m, n in counts.items()
    ]
    title = f"best {TITLES.get(value, value)}: mean, seeds won.  Cells won: {', '.join(tally)}"
    axes.set_title(textwrap.fill(title, int(13 * fig.get_size_inches()[0])), fontsize=9, loc="left")
    return fig
