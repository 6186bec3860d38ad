"""Figures of localized unlearning: masks per layer, curves over the budget, gaps to the oracle.

Modelled on the figures of arXiv 2412.02432; gaps are defined in ``oracle_gaps``.
"""

import json
from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearn.reporting.figures.canvas import file_name, new_figure
from unlearn.reporting.figures.planes import COLOURS
from unlearn.reporting.tables.facts import BASELINE, REFERENCE
from unlearn.reporting.tables.frames import existing_columns, standard_error
from unlearn.reporting.tables.oracle_gaps import (
    LAYERS,
    METRICS,
    OWN,
    SETTING,
    SHARE,
    WHOLE,
    parse_localizations,
    with_gaps,
)

MARKS = "osD^v<>P"


def _iterate_settings(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield name and rows of each setting; the name contains only varying columns."""
    keys = existing_columns(rows, SETTING)
    several = [k for k in keys if rows[k].nunique() > 1]
    for values, group in rows.groupby(keys, dropna=False):
        named = dict(zip(keys, values, strict=True))
        yield "".join(f"_{file_name(str(named[k]))}" for k in several), group


def _draw_curves(axes: Axes, rows: pd.DataFrame, metric: str, styles: dict[str, int]) -> None:
    for strategy, group in rows.groupby("strategy"):
        means = group.groupby("budget")[metric].agg(["mean", standard_error])
        if means.empty:
            continue
        i = styles[str(strategy)]
        axes.errorbar(
            means.index, means["mean"], yerr=means["standard_error"].fillna(0),
            color=COLOURS[i % len(COLOURS)], marker=MARKS[i % len(MARKS)],
            markersize=4, linewidth=1.2, capsize=2, label=_format_name(str(strategy)),
        )  # fmt: skip
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_level(axes: Axes, rows: pd.DataFrame, metric: str, label: str, style: str) -> None:
    value = rows[metric].mean()
    if pd.notna(value):
        axes.axhline(value, color="#444444", linestyle=style, linewidth=1, label=label)


def _format_name(name: str) -> str:
    return name.replace("_", " ")


def budget_curves(rows: pd.DataFrame) -> Figure:
    """Draw each metric over the budget, a line per strategy, a column per algorithm.

    Horizontal lines: the oracle, the original, and the algorithm on all parameters.

    Args:
        rows: Localized rows of one setting; ``del`` is drawn with the strategies of ``rft``.
    """
    metrics = [m for m in existing_columns(rows, tuple(METRICS)) if rows[m].notna().any()]
    local = rows[rows["budget"].notna()]
    local = local.assign(algorithm=local["algorithm"].replace("del", "rft"))
    algorithms = sorted(local["algorithm"].unique())
    styles = {str(s): i for i, s in enumerate(sorted(local["strategy"].unique()))}
    fig = new_figure(1.3 + 2.6 * len(algorithms), 0.9 + 1.75 * len(metrics))
    grid = fig.subplots(len(metrics), len(algorithms), squeeze=False, sharex=True, sharey="row")
    handles: dict[str, Artist] = {}
    for line, metric in zip(grid, metrics, strict=True):
        for axes, algorithm in zip(line, algorithms, strict=True):
            _draw_curves(axes, local[local["algorithm"] == algorithm], metric, styles)
            whole = rows[(rows["algorithm"] == algorithm) & (rows["strategy"] == WHOLE)]
            for part, label, style in (
                (rows[rows["role"] == REFERENCE], "oracle (retrained)", "--"),
                (rows[rows["role"] == BASELINE], "original", ":"),
                (whole, "the algorithm on all parameters", "-."),
            ):
                _draw_level(axes, part, metric, label, style)
            handles |= {str(k): h for h, k in zip(*axes.get_legend_handles_labels(), strict=True)}
        line[0].set_ylabel(METRICS[metric])
    for axes, algorithm in zip(grid[0], algorithms, strict=True):
        axes.set_title(_format_name(algorithm), fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("fraction of parameters that may change")
    fig.legend(
        list(handles.values()), list(handles), loc="outside upper center", ncols=4, frameon=False,
        fontsize=8,
    )  # fmt: skip
    return fig


def layer_shares(rows: pd.DataFrame) -> Figure:
    """Draw the share of critical parameters per layer, a line per strategy, a panel per budget.

    Args:
        rows: Located rows of one setting.
    """
    known = rows[rows[LAYERS].notna() & rows["budget"].notna()]
    budgets = sorted(known["budget"].unique())
    styles = {str(s): i for i, s in enumerate(sorted(known["strategy"].unique()))}
    layers = list(json.loads(known[LAYERS].iloc[0]))
    fig = new_figure(2 + 0.28 * len(layers) + 1.2, 0.8 + 1.7 * len(budgets))
    grid = fig.subplots(len(budgets), 1, squeeze=False, sharex=True)[:, 0]
    for axes, budget in zip(grid, budgets, strict=True):
        for strategy, group in known[known["budget"] == budget].groupby("strategy"):
            means = pd.DataFrame([json.loads(text) for text in group[LAYERS]]).mean()[layers]
            i = styles[str(strategy)]
            axes.plot(
                range(len(layers)), means, color=COLOURS[i % len(COLOURS)],
                marker=MARKS[i % len(MARKS)], markersize=3.5, linewidth=1, label=_format_name(str(strategy)),
            )  # fmt: skip
        axes.axhline(budget, color="#999999", linestyle=":", linewidth=0.8)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel(f"share, budget {budget:g}")
        axes.spines[["top", "right"]].set_visible(False)
    grid[-1].set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=7)
    handles = {k: h for a in grid for h, k in zip(*a.get_legend_handles_labels(), strict=True)}
    fig.legend(
        list(handles.values()), list(handles), loc="outside upper center", ncols=3, frameon=False,
        fontsize=8,
    )  # fmt: skip
    return fig


def main_budget(rows: pd.DataFrame) -> float | None:
    """Return the budget with the most algorithms and strategies; ties: the nearest to 0.3.

    None if no row has a budget.
    """
    pairs = rows.dropna(subset=["budget"]).drop_duplicates(["budget", "algorithm", "strategy"])
    counts = pairs.groupby("budget").size()
    best = counts.index[counts == counts.max()]
    return min((float(budget) for budget in best), key=lambda b: abs(b - 0.3), default=None)


def oracle_bars(rows: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Draw the differences to the oracle as bars, a panel per metric, the smallest mean gap on top.

    Args:
        rows: Rows of one setting with gaps; those at the main budget and at none are drawn.
        metrics: Metrics to draw.
    """
    rows = rows[(rows["role"] != REFERENCE) & rows["gap"].notna()]
    budget = main_budget(rows)
    rows = rows[rows["budget"].isna() | (rows["budget"] == budget)]
    alone = rows["strategy"].isin([WHOLE, OWN]) | (rows["strategy"] == rows["algorithm"])
    rows = rows.assign(
        method=rows["algorithm"].where(alone, rows["algorithm"] + ", " + rows["strategy"])
    )
    order = rows.groupby("method")["gap"].mean().sort_values(ascending=False).index
    fig = new_figure(2.6 + 1.7 * len(metrics), 0.9 + 0.2 * len(order))
    for axes, metric in zip(fig.subplots(1, len(metrics), sharey=True), metrics, strict=True):
        groups = rows.groupby("method")[f"gap/{metric}"]
        means, errors = groups.mean()[order], groups.agg(standard_error)[order].fillna(0)
        colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in means]
        axes.barh(range(len(order)), means, xerr=errors, height=0.7, color=colours,
                  error_kw={"elinewidth": 0.8, "ecolor": "#222222"})  # fmt: skip
        axes.axvline(0, color="#444444", linewidth=0.8)
        axes.set_title(METRICS[metric], fontsize=9)
        axes.set_xlabel("oracle - method, percentage points", fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks(range(len(order)), [_format_name(str(m)) for m in order], fontsize=7)
        axes.set_ylim(-0.6, len(order) - 0.4)
    if budget is not None:
        fig.suptitle(f"budget {budget:g}", fontsize=9)
    return fig


def draw_localization(frame: pd.DataFrame) -> dict[str, Figure]:
    """Return the figures that the rows support, by the stem of their files.

    Args:
        frame: Rows of the store.

    Raises:
        ValueError: If no run was localized.
    """
    out = {}
    for name, rows in _iterate_settings(with_gaps(parse_localizations(frame))):
        if rows[SHARE].notna().sum() == 0:
            continue
        out[f"localization_layers{name}"] = layer_shares(rows)
        out[f"localization_budgets{name}"] = budget_curves(rows)
        known = [m for m in METRICS if f"gap/{m}" in rows and rows[f"gap/{m}"].notna().any()]
        if len(known) > 1 and rows["gap"].notna().any():
            out[f"localization_gaps{name}"] = oracle_bars(rows, known)
    return out
