"""Histograms of a memorization score over successive requests (arXiv 2410.16516).

Shapes: N samples, M moments: before the first request and after every one, R requests.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearn.reporting.figures import canvas

PARTS = {"left": "#9a9a9a", "next": "#0072B2", "forgotten": "#D55E00"}
BINS = 30
SPAN = 1e-5
"""Start of the logarithmic bins of a non-negative score, relative to the largest value."""


def count_histograms(scores: Sequence[np.ndarray], requests: Sequence[np.ndarray]) -> pd.DataFrame:
    """Return histograms of the score, before the first request and after every one.

    Args:
        scores: Of all samples at M moments, (N,) each.
        requests: Indices of the R requests.

    Returns:
        Columns ``answered``, the number of requests so far; ``part``: "next", samples of the next
        request, "forgotten", samples of earlier requests, or "left"; ``low`` and ``high``
        of the bin, the same for all moments; ``count``.
    """
    edges = _bin_edges(np.concatenate(scores))
    rows = []
    for answered, values in enumerate(scores):
        part = np.full(len(values), "left", dtype=object)
        for number, request in enumerate(requests[: answered + 1]):
            part[request] = "next" if number == answered else "forgotten"
        for name in PARTS:
            count = np.histogram(values[part == name], bins=edges)[0]
            bins = {"low": edges[:-1], "high": edges[1:], "count": count}
            rows.append(pd.DataFrame({"answered": answered, "part": name} | bins))
    return pd.concat(rows, ignore_index=True)


def _bin_edges(values: np.ndarray) -> np.ndarray:
    """Return the bin edges: logarithmic for non-negative scores, else linear."""
    top = values.max()
    if values.min() < 0 or top <= 0:
        return np.histogram_bin_edges(values, bins=BINS)
    edges = np.concatenate([[0.0], np.geomspace(SPAN * top, top, BINS)])
    edges[-1] = top  # undo rounding of geomspace
    return edges


def draw_histograms(table: pd.DataFrame, score: str) -> Figure:
    """Draw a panel per moment: histograms of each part on a log scale.

    Args:
        table: From ``count_histograms``.
        score: Name of the score.
    """
    moments = sorted(table["answered"].unique())
    fig = canvas.new_figure(1.2 + 2.3 * len(moments), 2.7)
    panels = fig.subplots(1, len(moments), squeeze=False, sharex=True, sharey=True)[0]
    for ax, answered in zip(panels, moments, strict=True):
        for name, colour in PARTS.items():
            own = table[(table["answered"] == answered) & (table["part"] == name)]
            if own["count"].sum():
                edges = [*own["low"], own["high"].iloc[-1]]
                ax.stairs(own["count"], edges, color=colour, lw=1.4, label=name)
        ax.set_yscale("symlog", linthresh=1)
        if table["low"].min() == 0:
            low, high = table["high"].min(), table["high"].max()
            ax.set_xscale("symlog", linthresh=low, linscale=0.3)
            powers = np.arange(np.ceil(np.log10(low)) + 1, np.log10(high) + 1e-9, 2)
            ax.set_xticks([0, *10.0**powers])
        ax.set_title("before any" if answered == 0 else f"after {answered}", fontsize=9)
        ax.set_xlabel(score.replace("_", " "), fontsize=8)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("samples", fontsize=8)
    handles = {k: h for ax in panels for h, k in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(
        list(handles.values()), list(handles), loc="outside right upper", frameon=False, fontsize=8
    )
    return fig
