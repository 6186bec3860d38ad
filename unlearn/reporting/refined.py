"""Tables and figures of refined unlearning: RUM's variants, sequences of requests, proxies.

Sources: arXiv 2406.01257, 2410.16516. Means over seeds with 95 % Student-t intervals.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from unlearn.reporting import canvas
from unlearn.reporting.tables import TITLES

VARIANTS = ("vanilla", "shuffle", "refined", "meta", "auto")
CHOSEN = ("meta", "auto")  # a method of its own for each part: the last rows of the table
FIRST = ("retrain", "original")  # a second retrained model, and doing nothing: the first rows
METRICS = ("tow", "tow_mia", "mia_gap", "forget/accuracy", "retain/accuracy", "test/accuracy")
METRICS += (
    "forget_set/entanglement",
    "mia",
    "forget/disagreement",
    "tow_so_far",
    "js/forget",
    "js/test",
    "kl/forget",
)
METRICS += ("klom/forget", "klom/retain", "klom/test", "relearn_steps", "relearn_steps_retrained")
METRICS += ("relearn_gap", "lira/auc", "lira/member", "lira/member_retrained")
METRICS += ("mia_correctness", "mia_correctness_gap", "tow_mia_so_far")
METRICS += ("ulira/auc", "ulira/tpr", "relative_seconds")
PRINTED = (
    *METRICS[:7],
    "tow_so_far",
    "klom/forget",
    "lira/auc",
    "ulira/auc",
    "relearn_gap",
    "relative_seconds",
)
PAPER = ("tow", "mia_gap", "tow_mia")
LOST = {"tow": 0.0, "tow_mia": 0.0, "mia_gap": 1.0}  # of a model that does not exist any more
SETTING = ("dataset", "model", "score", "forget_set/kind", "forget_set/group", "forget_set/size")
HALF = "_ci95"


def half_width(values: Sequence[float]) -> float:
    """Return half of the 95 % Student-t interval of a mean; NaN for fewer than two values."""
    n = len(values)
    if n < 2:
        return math.nan
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))


def uncorrupted(frame: pd.DataFrame) -> pd.Series:
    """Return which rows are of data that nobody corrupted: there is nothing to heal; bool (rows,)."""
    return frame["corruption"] == "none"


def overview(
    frame: pd.DataFrame, by: Sequence[str] = ("method",), metrics: Sequence[str] = METRICS
) -> pd.DataFrame:
    """Return a row per setting, method and variant of RUM, as the paper's table has them.

    Args:
        frame: Rows of the store, prepared, without corruption.
        by: Columns to group by; "method" has the variant beside it.
        metrics: Columns to average.

    Returns:
        What of ``SETTING`` and ``by`` varies, the request's number, method and variant; ``n`` seeds;
        per known metric its mean and half of the 95 % interval over seeds, ``<metric>_ci95``; the
        number of runs that collapsed, whose ToW counts as 0 and whose MIA gap as 1.
    """
    if frame.empty:
        return pd.DataFrame()
    frame = _parted(frame)
    keys = [c for c in (*SETTING, *by) if c in frame and (c in by or _differ(frame, c))]
    if frame["request"].nunique() > 1:
        keys.append("request")
    if "method" in by:
        keys = [k for k in keys if k != "method"] + ["method", "variant"]
    known = [m for m in metrics if m in frame and frame[m].notna().any()]
    rows = []
    for key, group in frame.groupby(keys, dropna=False, sort=False):
        seeds = group.groupby("seed")[known].mean()
        row: dict[str, Any] = dict(zip(keys, key, strict=True)) | {"n": len(seeds)}
        for metric in known:
            values = seeds[metric].dropna()
            row |= {metric: values.mean(), metric + HALF: half_width(list(values))}
        rows.append(row | {"collapsed": int((group["status"] == "collapsed").sum())})
    if "method" in by:
        rows.sort(key=lambda row: _place(row, keys))
    out = pd.DataFrame(rows)
    out.attrs["n"] = "seeds"
    plain = "variant" in out and (out["variant"] == "-").all()
    return out.drop(columns="variant") if plain else out


def _differ(frame: pd.DataFrame, column: str) -> bool:
    return frame[column].nunique(dropna=False) > 1


def _parted(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with RUM's variant beside the method, requests from 1, and lost models counted."""
    mode = frame["method/mode"] if "method/mode" in frame else pd.Series(None, frame.index)
    names, kinds = [], []
    for name, kind in zip(frame["method"].astype(str), mode, strict=True):
        known = isinstance(kind, str)
        inside = name.removeprefix("rum(").partition(" ")[0]
        names.append(("rum" if kind in CHOSEN else inside) if known else name)
        kinds.append(kind if known else "-")
    out = frame.assign(method=names, variant=kinds, request=frame["step"] + 1)
    lost = out["status"] == "collapsed"
    for metric, value in LOST.items():
        if metric in out:
            out.loc[lost, metric] = out.loc[lost, metric].astype(float).fillna(value)
    numbers = [m for m in METRICS if m in out]
    return out.astype(dict.fromkeys(numbers, float))


def _place(row: Mapping[str, Any], keys: Sequence[str]) -> tuple[Any, ...]:
    """Return what a row is sorted by: settings, then the references, methods, the best per part."""
    method, variant = row["method"], row["variant"]
    order = 0 if method == FIRST[0] else 1 if method == FIRST[1] else 3 if variant in CHOSEN else 2
    kind = ("-", *VARIANTS).index(variant) if variant in ("-", *VARIANTS) else 0
    own = [row[k] for k in keys if k not in ("method", "variant", "request")]
    first = [(0, v, "") if isinstance(v, int | float) else (1, 0, str(v)) for v in own]
    return (*first, order, str(method), kind, row.get("request", 0))


def shortened(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of ``overview`` without what a terminal has no room for.

    The headline keeps its intervals.
    """
    gone = {m for m in METRICS if m not in PRINTED} | {m + HALF for m in METRICS if m not in PAPER}
    return table[[c for c in table if c not in gone]]


def paper(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table of RUM as its paper has it: ToW and MIA gap per method and variant.

    Only settings in which RUM was run; empty if there are none.
    """
    if "method/mode" not in frame or "tow" not in frame:
        return pd.DataFrame()
    own = [c for c in (*SETTING, "step") if c in frame]
    setting = frame[own].apply(lambda row: tuple(str(v) for v in row), axis=1)
    return overview(frame[setting.isin(set(setting[frame["method/mode"].notna()]))], metrics=PAPER)


def sequence(
    frame: pd.DataFrame, metrics: Sequence[str] = ("tow", "tow_mia", "tow_so_far", "tow_mia_so_far")
) -> Figure:
    """Return how metrics change from request to request, a line per method with its 95 % interval.

    What ends in ``_so_far`` is cumulative, with all that was to be forgotten up to there. Settings that
    differ, as requests that are graded anew, have lines of their own.

    Raises:
        ValueError: If no run answered several requests.
    """
    known = [m for m in metrics if m in frame and frame[m].notna().any()]
    if frame.empty or not known or frame["step"].max() < 1:
        raise ValueError("figure=sequence needs runs of several requests: forget_set=sequential")
    several = set(frame.loc[frame["step"] > 0, "run_id"])
    frame = frame[frame["run_id"].isin(several)]
    for name in ("tow", "tow_mia"):
        if f"{name}_so_far" in frame:  # of the first request they are the same
            frame = frame.assign(**{f"{name}_so_far": frame[f"{name}_so_far"].fillna(frame[name])})
    table = overview(frame, metrics=known)
    setting = [c for c in (*SETTING, "variant") if c in table]
    words = table[["method", *setting]].itertuples(index=False)
    label = [" ".join(str(w) for w in row if w == w and w not in (None, "-")) for row in words]
    fig = canvas.figure(3.4 * len(known) + 1.4, 3.2)
    panels = fig.subplots(1, len(known), squeeze=False)[0]
    for ax, metric in zip(panels, known, strict=True):
        for i, (name, part) in enumerate(table.groupby(label, sort=False)):
            steps = part["request"] + 0.06 * (i - (len(set(label)) - 1) / 2)  # apart from others
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


def closeness(frame: pd.DataFrame) -> Figure:
    """Return ToW, ToW-MIA and MIA gap per method and variant as dots with 95 % intervals.

    Raises:
        ValueError: If no row of uncorrupted data has ToW.
    """
    frame = frame[uncorrupted(frame) & (frame["step"] == 0)] if len(frame) else frame
    table = overview(frame, metrics=PAPER)
    if "tow" not in table:
        raise ValueError("figure=closeness needs rows of corruption=none with evaluation=refined")
    known = [m for m in PAPER if m in table]
    words = [str(c) for c in table.columns[: list(table.columns).index("n")]]
    known_words = table[words].astype(object).where(table[words].notna(), "-").to_numpy()
    labels = [" ".join(str(v) for v in row if v != "-") for row in known_words]
    fig = canvas.figure(2.6 * len(known) + 1.6, 0.8 + 0.24 * len(table))
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


def against(
    scores: Mapping[str, np.ndarray], reference: str, correlation: Mapping[str, float]
) -> Figure:
    """Return every score against the reference, sample by sample, by rank.

    Args:
        scores: By name, (N,) each.
        reference: The name on every x axis.
        correlation: Spearman's with the reference, by name.
    """
    others = [name for name in scores if name != reference]
    fig = canvas.figure(2.2 * min(3, len(others)), 2.2 * math.ceil(len(others) / 3))
    x = scores[reference]
    for i, name in enumerate(others):
        ax = fig.add_subplot(math.ceil(len(others) / 3), min(3, len(others)), i + 1)
        ax.scatter(x, stats.rankdata(scores[name]) / len(x), s=2, alpha=0.4, linewidths=0)
        ax.set_title(f"{name} ({correlation[name]:.2f})", fontsize=8)
        ax.set_xlabel(reference, fontsize=7)
        ax.set_ylabel("rank", fontsize=7)
        ax.tick_params(labelsize=6)
    return fig
