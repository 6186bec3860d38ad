"""Figures of refined unlearning."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from unlearn.reporting.figures import canvas
from unlearn.reporting.tables.refined import HALF, PAPER, SETTING, is_uncorrupted, tabulate_refined
from unlearn.reporting.tables.summary import TITLES


def draw_sequence(
    frame: pd.DataFrame, metrics: Sequence[str] = ("tow", "tow_mia", "tow_so_far", "tow_mia_so_far")
) -> Figure:
    """Return metrics over successive requests, a line per method with its 95 % interval.

    Columns ``_so_far`` are cumulative over all requests so far. Settings that
    differ, such as requests that are graded anew, have separate lines.

    Raises:
        ValueError: If no run answered several requests.
    """
    known = [m for m in metrics if m in frame and frame[m].notna().any()]
    if frame.empty or not known or frame["step"].max() < 1:
        raise ValueError("figure=sequence needs runs of several requests: forget_set=sequential")
    several = set(frame.loc[frame["step"] > 0, "run_id"])
    frame = frame[frame["run_id"].isin(several)]
    for name in ("tow", "tow_mia"):
        if f"{name}_so_far" in frame:  # equal for the first request
            frame = frame.assign(**{f"{name}_so_far": frame[f"{name}_so_far"].fillna(frame[name])})
    table = tabulate_refined(frame, metrics=known)
    setting = [c for c in (*SETTING, "variant") if c in table]
    words = table[["method", *setting]].itertuples(index=False)
    label = [" ".join(str(w) for w in row if w == w and w not in (None, "-")) for row in words]
    fig = canvas.new_figure(3.4 * len(known) + 1.4, 3.2)
    panels = fig.subplots(1, len(known), squeeze=False)[0]
    for ax, metric in zip(panels, known, strict=True):
        for i, (name, part) in enumerate(table.groupby(label, sort=False)):
            steps = part["request"] + 0.06 * (i - (len(set(label)) - 1) / 2)  # separate from others
            half = np.nan_to_num(part[metric + HALF])
            ax.errorbar(
                steps, part[metric], yerr=half, label=str(name), capsize=2, marker="o", ms=3
            )
        ax.set_xlabel("request")
        ax.set_ylabel(TITLES.get(metric, metric))
        ax.set_ylim(max(-0.02, ax.get_ylim()[0]), min(1.02, ax.get_ylim()[1]))  # shares
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y", color="#dddddd", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def draw_closeness(frame: pd.DataFrame) -> Figure:
    """Return ToW, ToW-MIA and MIA gap per method and variant as dots with 95 % intervals.

    Raises:
        ValueError: If no row of uncorrupted data has ToW.
    """
    frame = frame[is_uncorrupted(frame) & (frame["step"] == 0)] if len(frame) else frame
    table = tabulate_refined(frame, metrics=PAPER)
    if "tow" not in table:
        raise ValueError("figure=closeness needs rows of corruption=none with evaluation=refined")
    known = [m for m in PAPER if m in table]
    words = [str(c) for c in table.columns[: list(table.columns).index("n")]]
    known_words = table[words].astype(object).where(table[words].notna(), "-").to_numpy()
    labels = [" ".join(str(v) for v in row if v != "-") for row in known_words]
    fig = canvas.new_figure(2.6 * len(known) + 1.6, 0.8 + 0.24 * len(table))
    panels = fig.subplots(1, len(known), squeeze=False, sharey=True)[0]
    y = np.arange(len(table))[::-1]
    for ax, metric in zip(panels, known, strict=True):
        half = np.nan_to_num(table[metric + HALF])
        ax.errorbar(table[metric], y, xerr=half, fmt="o", ms=4, capsize=2.5, color="#0072B2")
        ax.set_xlim(max(-0.02, ax.get_xlim()[0]), min(1.02, ax.get_xlim()[1]))  # shares
        better = "lower" if metric == "mia_gap" else "higher"
        ax.set_xlabel(f"{TITLES.get(metric, metric)} ({better} is better)", fontsize=9)
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(y, [text.replace("_", " ") for text in labels], fontsize=8)
    return fig


def draw_scores_against(
    scores: Mapping[str, np.ndarray], reference: str, correlation: Mapping[str, float]
) -> Figure:
    """Return scatter plots of every score against the reference, by rank.

    Args:
        scores: By name, (N,) each.
        reference: Name of the score on the x axes.
        correlation: Spearman's with the reference, by name.
    """
    others = [name for name in scores if name != reference]
    fig = canvas.new_figure(2.2 * min(3, len(others)), 2.2 * math.ceil(len(others) / 3))
    x = scores[reference]
    for i, name in enumerate(others):
        ax = fig.add_subplot(math.ceil(len(others) / 3), min(3, len(others)), i + 1)
        ax.scatter(x, stats.rankdata(scores[name]) / len(x), s=2, alpha=0.4, linewidths=0)
        ax.set_title(f"{name} ({correlation[name]:.2f})", fontsize=8)
        ax.set_xlabel(reference, fontsize=7)
        ax.set_ylabel("rank", fontsize=7)
        ax.tick_params(labelsize=6)
    return fig
