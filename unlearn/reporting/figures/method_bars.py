"""Figures of one task: bars of all methods, and curves of REM's two networks."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unlearn.reporting.figures.canvas import new_figure
from unlearn.reporting.tables.facts import order_corruptions, regularity_levels
from unlearn.reporting.tables.summary import summarize_metrics

HEALED, UTILITY, FULL = "#0072B2", "#E69F00", "#009E73"  # Okabe and Ito, colour-blind safe
HIDDEN = "hidden_accuracy_given"  # curves: hidden samples that still get the corrupted label


def draw_bars(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw healed and utility of each method as bars, the product as text; best on top.

    Args:
        axes: To draw on.
        frame: Rows of one task; the error bars are standard errors over its seeds.
    """
    table = summarize_metrics(frame)[::-1].reset_index(drop=True)
    bars = {"elinewidth": 1.2, "capsize": 2.5, "ecolor": "#222222"}
    for offset, column, colour in ((0.2, "healed", HEALED), (-0.2, "utility", UTILITY)):
        y = table.index + offset
        axes.barh(y, table[column], 0.38, color=colour, label=column)
        known = table[table[f"{column}_sem"].notna()]  # one seed has no error
        if len(known):
            at = known.index + offset
            axes.errorbar(known[column], at, xerr=known[f"{column}_sem"], fmt="none", **bars)
    for y, row in table.iterrows():
        axes.text(1.04, float(str(y)), _format_product(row), va="center", ha="left", fontsize=9)
    axes.text(1.04, len(table) - 0.45, "healed\nx utility", va="bottom", ha="left", fontsize=8)
    axes.set_yticks(range(len(table)), [str(m).replace("_", " ") for m in table["method"]])
    axes.set_ylim(-0.55, len(table) - 0.45)
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _format_product(row: pd.Series) -> str:
    value, error = row["healed_utility"], row["healed_utility_sem"]
    if pd.isna(value):
        return "-"
    text = f"{value:.2f}" if pd.isna(error) else f"{value:.2f} ± {error:.2f}"
    return text + (" (collapsed)" if row["collapsed"] == row["n"] else "")


def draw_redirection_panel(axes: Axes, curves: pd.DataFrame) -> None:
    """Draw the accuracies of REM's two networks on hidden corrupted samples, by epoch.

    Args:
        axes: To draw on.
        curves: Columns epoch, base/hidden_accuracy_given, full/hidden_accuracy_given in [0, 1]; of
            several (``run_id``) the mean is drawn and the range shaded; ended runs keep their last value.

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
        runs = _by_epoch(curves, f"{name}/{HIDDEN}")
        low, high = runs.min(axis=1), runs.max(axis=1)
        axes.plot(runs.index, runs.mean(axis=1), marker=marker, ms=4, color=colour, label=label)
        if (high > low).any():
            axes.fill_between(runs.index, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(-0.03, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch of removal and redirection")
    axes.set_ylabel("hidden samples that still\nget the corrupted label")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _by_epoch(curves: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a curve's values, one column per run; ended runs keep their last value."""
    run = curves["run_id"] if "run_id" in curves else pd.Series("", curves.index)
    known = curves.assign(run_id=run).dropna(subset=[column])
    return known.pivot_table(index="epoch", columns="run_id", values=column).ffill()


def draw_comparison(frame: pd.DataFrame) -> Figure:
    """Return the bars of all methods on one task."""
    fig = new_figure(6.5, 1.4 + 0.5 * frame["method"].nunique())
    draw_bars(fig.add_subplot(), frame)
    return fig


def draw_corruptions(frame: pd.DataFrame) -> Figure:
    """Return healed x utility of each method, a panel per corruption, the least regular first.

    All panels order the methods by their mean over the corruptions; error bars are
    standard errors over cells.

    Args:
        frame: Rows of one or more corruptions, prepared.
    """
    levels = regularity_levels(frame)
    unknown = sorted(set(frame["corruption"].astype(str)) - set(levels))
    names = [*reversed(levels), *unknown]
    tables = {
        name: summarize_metrics(frame[frame["corruption"] == name]).set_index("method")
        for name in names
    }
    means = pd.concat([table["healed_utility"] for table in tables.values()], axis=1).mean(axis=1)
    order = list(means.sort_values(kind="stable").index)
    fig = new_figure(2.9 * len(names) + 1.2, 1.2 + 0.34 * len(order))
    panels = fig.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, names, strict=True):
        _draw_product_bars(axes, tables[name].reindex(order))
        regularity = f"\n{levels[name]} regularity" if name in levels else ""
        axes.set_title(name.replace("_", " ") + regularity, fontsize=10)
    panels[0].set_yticks(range(len(order)), [str(m).replace("_", " ") for m in order])
    panels[0].set_ylim(-0.6, len(order) - 0.4)
    fig.supxlabel("healed x utility", fontsize=10)
    return fig


def _draw_product_bars(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the product of each row as a bar with its value."""
    for y, (_, row) in enumerate(table.iterrows()):
        value, error = row["healed_utility"], row["healed_utility_sem"]
        if pd.isna(value):
            continue
        axes.barh(y, value, 0.62, color=HEALED)
        error = 0.0 if pd.isna(error) else error  # one seed has no error bar
        if error:
            axes.errorbar(
                value, y, xerr=error, fmt="none", elinewidth=1.2, capsize=2.5, ecolor="#222222"
            )
        axes.text(value + error + 0.03, y, f"{value:.2f}", va="center", ha="left", fontsize=9)
    axes.set_xlim(0, 1.16)
    axes.set_xticks((0, 0.5, 1))
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_redirection(curves: pd.DataFrame) -> Figure:
    """Return the curves of REM's base and full network on hidden samples, a panel per corruption.

    Args:
        curves: As for ``draw_redirection_panel``; a column ``corruption`` splits it.
    """
    parts, names = {"": curves}, [""]
    if "corruption" in curves:
        parts = {str(name): part for name, part in curves.groupby("corruption")}
        names = order_corruptions(parts, regularity_levels(curves))
    fig = new_figure(4.2 * len(names) + 0.8, 3.6)
    panels = fig.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, names, strict=True):
        draw_redirection_panel(axes, parts[name])
        if axes is not panels[0]:
            axes.set_ylabel("")
            axes.get_legend().remove()
        if name:
            axes.set_title(name.replace("_", " "), loc="right", fontsize=10)
    return fig


def draw_demo(frame: pd.DataFrame, curves: pd.DataFrame | None) -> Figure:
    """Return the bars of all methods next to REM's curves, or only the bars without curves."""
    if curves is None:
        return draw_comparison(frame)
    fig = new_figure(11, max(3.6, 1.4 + 0.5 * frame["method"].nunique()))
    left, right = fig.subplots(1, 2, width_ratios=(1.25, 1))
    draw_bars(left, frame)
    draw_redirection_panel(right, curves)
    fig.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr]
    return fig
