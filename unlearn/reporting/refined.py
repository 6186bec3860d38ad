"""Tables and figures of refined unlearning: RUM's variants, sequences of requests, proxies.

Sources: arXiv 2406.01257, 2410.16516. Means over seeds with 95 % Student-t intervals.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from unlearn.reporting import canvas

VARIANTS = ("vanilla", "shuffle", "refined", "meta")
METRICS = {
    "tow": "ToW",
    "mia_gap": "MIA gap",
    "tow_mia": "ToW-MIA",
    "forget/disagreement": "disagreement",
    "relative_seconds": "time / retrain",
}


def half_width(values: Sequence[float]) -> float:
    """Return half of the 95 % Student-t interval of a mean; NaN for fewer than two values."""
    n = len(values)
    if n < 2:
        return math.nan
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))


def interval(values: Sequence[float]) -> str:
    """Return ``mean ± half width`` with three digits; ``n/a`` where there is none."""
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not known:
        return "-"
    half = half_width(known)
    return f"{np.mean(known):.3f} ± " + ("n/a" if math.isnan(half) else f"{half:.3f}")


def variants(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row per method and variant, as the paper's table has them.

    Args:
        frame: Rows of the store, of one task; those without ToW are left out.

    Returns:
        Columns method, variant, n (seeds), and the known ones of ``METRICS`` as text; empty if
        there is no row of RUM.
    """
    if "method/mode" not in frame or "tow" not in frame:
        return pd.DataFrame()
    frame = frame[frame["tow"].notna()]
    rows = []
    for name in dict.fromkeys(frame["method"]):
        part = frame[frame["method"] == name]
        mode = part["method/mode"].iloc[0]
        known = isinstance(mode, str)
        plain = str(name).removeprefix("rum(").removesuffix(")").split(" ")[0] if known else name
        row = {"method": plain, "variant": mode if known else "-", "n": part["seed"].nunique()}
        row |= {t: interval(list(part[m])) for m, t in METRICS.items() if m in part}
        rows.append(row)
    place = {v: i for i, v in enumerate(("-", *VARIANTS))}
    rows.sort(key=lambda r: (r["variant"] == "meta", str(r["method"]), place[r["variant"]]))
    return pd.DataFrame(rows)


def sequence(frame: pd.DataFrame, metrics: Sequence[str] = ("tow", "tow_mia")) -> Figure:
    """Return how metrics change from request to request, a line per method with its interval.

    Raises:
        ValueError: If no run answered several requests.
    """
    known = [m for m in metrics if m in frame and frame[m].notna().any()]
    if frame.empty or not known or frame["step"].max() < 1:
        raise ValueError("figure=sequence needs runs of several requests: forget_set=sequential")
    fig = canvas.figure(4.5 * len(known), 3.2)
    for i, metric in enumerate(known):
        ax = fig.add_subplot(1, len(known), i + 1)
        for name, part in frame.groupby("method"):
            groups = part.dropna(subset=[metric]).groupby("step")[metric]
            steps = np.array(list(groups.groups)) + 1
            means = groups.mean().to_numpy()
            halves = np.array([half_width(list(values)) for _, values in groups])
            ax.errorbar(steps, means, yerr=np.nan_to_num(halves), label=str(name), capsize=2)
        ax.set_xlabel("request")
        ax.set_ylabel(METRICS.get(metric, metric))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    fig.axes[0].legend(fontsize=7)
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
