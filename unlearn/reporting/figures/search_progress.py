"""How the best score of a search of options grows with its trials: what more search would have bought."""

import re
from collections.abc import Mapping
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearn.reporting.figures.canvas import new_figure
from unlearn.reporting.figures.planes import COLOURS


def read_studies(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the trials of each study below a folder, ``<name>-<hash>/trials.csv``, by name.

    Trials have the columns ``trial``, ``score`` and ``pruned``; pruned ones are left out, since their
    score is that of a part of the tasks. Of several studies of one name the newest counts.
    """
    out: dict[str, pd.DataFrame] = {}
    for path in sorted(folder.glob("*/trials.csv"), key=lambda p: p.stat().st_mtime):
        trials = pd.read_csv(path)
        if {"trial", "score", "pruned"} <= set(trials):
            name = re.sub(r"-[0-9a-f]+$", "", path.parent.name)
            out[name] = trials[~trials["pruned"].astype(bool)].sort_values("trial")
    return {name: trials for name, trials in out.items() if len(trials)}


def expect_best(scores: np.ndarray) -> np.ndarray:
    """Return the expected best of 1, 2, ... n of the scores drawn without replacement, (n,)."""
    ranked, n = np.sort(scores), len(scores)
    return np.array(
        [
            sum(ranked[k] * comb(k, size - 1) for k in range(size - 1, n)) / comb(n, size)
            for size in range(1, n + 1)
        ]
    )


def draw_search_progress(studies: Mapping[str, pd.DataFrame]) -> Figure:
    """Return the best score so far against the number of trials, one line per study.

    The dotted line is the expected best of that many of the study's trials, whatever their order: where
    it still rises at the end, more trials would have found more.

    Args:
        studies: From ``read_studies``, at least one.
    """
    fig = new_figure(7.5, 4.6)
    axes = fig.add_subplot()
    for (name, trials), colour in zip(sorted(studies.items()), COLOURS * 3, strict=False):
        scores = trials["score"].to_numpy(float)
        number = np.arange(1, len(scores) + 1)
        best = np.maximum.accumulate(scores)
        axes.step(number, best, where="post", color=colour, label=f"{name}: {best[-1]:.2f}")
        axes.plot(number, expect_best(scores), ":", color=colour, linewidth=1.2)
    axes.set_xlabel("trials (dotted: expected best of as many, in any order)")
    axes.set_ylabel("best score on held-out listed samples")
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    return fig
