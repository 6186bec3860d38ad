"""Table of detectors: quality of the found samples, and results of methods on them."""

from typing import Any

import pandas as pd

from unlearn.reporting.tables.frames import fill_collapsed

QUALITY = {
    "discovery/size": "found",
    "discovery/precision": "precision",
    "discovery/recall": "recall",
}


def tabulate_detectors(frame: pd.DataFrame, value: str = "healed_utility") -> pd.DataFrame:
    """Return a row per corruption and detector with a column per method; empty without detectors.

    Args:
        frame: Rows, prepared.
        value: Column to average over seeds, per method.

    Returns:
        ``corruption``, ``detector``, ``n`` seeds, ``found`` samples, ``precision``, ``recall``, and the
        methods' means, the best method of all first.
    """
    if "discovery/by" not in frame or not frame["discovery/by"].notna().any():
        return pd.DataFrame()
    frame = fill_collapsed(frame[frame["discovery/by"].notna()], [value])
    methods = frame.groupby("method")[value].mean().sort_values(ascending=False).index
    rows = []
    for (corruption, name), group in frame.groupby(["corruption", "discovery/by"]):
        row: dict[str, Any] = {"corruption": corruption, "detector": name}
        row["n"] = group["seed"].nunique()
        once = group.drop_duplicates("seed")
        row |= {title: once[c].astype(float).mean() for c, title in QUALITY.items() if c in once}
        rows.append(row | {str(m): group.loc[group["method"] == m, value].mean() for m in methods})
    return pd.DataFrame(rows)
