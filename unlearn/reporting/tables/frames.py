"""Preparation of rows for tables and figures: labels, copied rates, cells, regions.

A *task* consists of data, network, corruption and discovery: the rate, or
the detector. A *cell* is a task with a seed. Conventions: arXiv 2505.17730.
"""

import logging
import math
from collections.abc import Sequence

import pandas as pd

from unlearn.core.words import count_noun
from unlearn.reporting.tables.facts import read_fact

log = logging.getLogger(__name__)

DISCOVERY = (
    "discovery",
    "discovery/by",
    "config/discovery_precision",
)  # discovery rate or detector
TASK = ("dataset", "model", "corrupted", "corruption", *DISCOVERY)
MACHINE = ("machine/instructions", "machine/onednn", "machine/device", "machine/threads")
BANDS = {"low": (0.0, 0.35), "mid": (0.35, 0.75), "high": (0.75, 1.0)}  # discovery rates, (a, b]
COLLAPSED = 0.0  # value of missing accuracies of a collapsed model
NUMBERS = ("discovery", "corrupted", "seed", "seconds", "peak_bytes", "wall_seconds")
NUMBERS += ("healed", "utility", "healed_utility", "tow", "tow_mia", "mia_gap")
ANY_VALUES = ("config/", "versions/", "failed/", "method/")  # prefixes of columns of both kinds


def label_pretraining(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a non-standard pre-training added to the method's name.

    ``rem`` after ETD becomes ``rem(etd)``, a separate row in every table. Labels are unchanged
    when this is called again.
    """
    if frame.empty or "pretraining" not in frame:
        return frame.copy()
    kind = frame["pretraining"].fillna("standard").astype(str)
    names = [_format_label(str(m), k) for m, k in zip(frame["method"], kind, strict=True)]
    return frame.assign(method=names)


def _format_label(method: str, pretraining: str) -> str:
    ending = f"({pretraining})"
    plain = pretraining in ("standard", method) or method.endswith(ending)
    return method if plain else method + ending


def existing_columns(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return those of the columns that the frame has."""
    return [c for c in columns if c in frame]


def spread_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of methods that do not use the forget set copied to all discovery rates.

    Only if one rate was run, since such a method gives the same result at all rates. The rates
    are those of the same data set.
    """
    if frame.empty:
        return frame.copy()
    free = read_fact(frame, "uses_forget_set") == False  # noqa: E712 - None is unknown
    copied, rates = [], []
    own = existing_columns(frame, ("method", *(c for c in TASK if c != "discovery"), "seed"))
    for _, group in frame[free].groupby(own, dropna=False):
        run = group["discovery"].dropna().unique()
        if len(run) == 1:
            others = [d for d in _all_rates(frame, group) if d != run[0]]
            copied += list(group.index) * len(others)
            rates += [d for d in others for _ in group.index]
    more = frame.loc[copied].assign(discovery=rates)  # all at once, since the frame is wide
    both = pd.concat([frame, more], ignore_index=True) if copied else frame
    return both.copy()  # all at once: pandas warns about fragmentation


def _all_rates(frame: pd.DataFrame, group: pd.DataFrame) -> list[float]:
    alike = frame["dataset"].isin(group["dataset"]) if "dataset" in frame else slice(None)
    return sorted(frame.loc[alike, "discovery"].dropna().unique())


def drop_text_values(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without text in number columns; a warning names run and column of each.

    A number column is one of ``NUMBERS``, or holds more numbers than text.
    """
    changed = {}
    for column in frame:
        name, values = str(column), frame[column]
        if name.startswith(ANY_VALUES) or pd.api.types.is_numeric_dtype(values):
            continue
        texts = values.map(lambda value: isinstance(value, str))
        numbers = values.map(lambda value: isinstance(value, int | float) and value == value)
        if not texts.any() or (name not in NUMBERS and numbers.sum() <= texts.sum()):
            continue
        for run_id, value in zip(frame.loc[texts, "run_id"], values[texts], strict=True):
            log.warning("run %s: %s is not a number, left out: %r", run_id, name, value)
        changed[name] = pd.to_numeric(values.mask(texts))
    return frame.assign(**changed) if changed else frame


def prepare_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the store's rows, labelled and spread over rates, for tables and figures.

    The discovery rate of a user's list is unknown, whatever earlier versions recorded.
    """
    if "forget_set/kind" in frame:
        listed = frame["forget_set/kind"] == "file"
        rates = existing_columns(frame, ("discovery", "config/discovery"))
        frame = frame.assign(**{c: frame[c].astype(object).mask(listed, None) for c in rates})
    if "discovery" in frame:  # a column of only None cannot be sorted
        frame = frame.assign(discovery=frame["discovery"].astype(float))
    return spread_rates(label_pretraining(frame))


def select_current_data(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows without those of data that has changed since, and a line for each such set.

    Rows with the same options of the data set but another hash of its content were made from other
    images or labels: only those of the newest row's content are kept. Rows without a hash stay.
    """
    if frame.empty or "data/digest" not in frame:
        return frame, []
    options = [str(c) for c in frame if str(c).startswith("config/dataset.")]
    keys = existing_columns(frame, ("dataset", *options))
    stale, lines = pd.Series(False, frame.index), []
    alike = [frame[key].map(lambda v: str(v) if isinstance(v, list | dict) else v) for key in keys]
    for _, group in frame.groupby(alike, dropna=False):
        known = group.dropna(subset=["data/digest"])
        if known["data/digest"].nunique() < 2:
            continue
        newest = known.sort_values("created", kind="stable")["data/digest"].iloc[-1]
        old = known.index[known["data/digest"] != newest]
        stale[old] = True
        lines.append(
            f"data set {group['dataset'].iloc[0]} has changed: {count_noun(len(old), 'row')} of earlier "
            f"content left out (where.data/digest selects them; newest: {newest})"
        )
    return frame[~stale], lines


def describe_machines(frame: pd.DataFrame) -> str | None:
    """Return a line if the rows come from machines that round differently, else None."""
    columns = existing_columns(frame, MACHINE)
    found = frame[columns].dropna(how="all").astype(object).fillna("unknown").astype(str)
    found = found.drop_duplicates()
    if len(found) < 2:
        return None
    varying = [c for c in columns if found[c].nunique() > 1]
    values = "; ".join(f"{c} {', '.join(sorted(found[c].unique()))}" for c in varying)
    return f"rows come from machines that round differently: {values}"


def on_plane(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the task space: with a simulated discovery rate, no false alarms.

    Rows of detectors and of imperfect precision are excluded.
    """
    known = frame["discovery"].notna()
    if "config/discovery_precision" in frame:
        known &= frame["config/discovery_precision"].isna()
    return frame[known]


def standard_error(values: pd.Series) -> float:
    """Return the sample deviation (ddof 1) over the root of the number; NaN below two values."""
    values = values.dropna()
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def fill_collapsed(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the rows with 0 for missing accuracies of collapsed models.

    Excluding such cells would favour the method. A failed cell stays without a value:
    its model is unknown.
    """
    frame = frame.copy()
    collapsed = frame["status"] == "collapsed"
    for metric in metrics:
        frame[metric] = frame[metric].astype(float)  # a column of only None has no mean
        if metric != "seconds":
            frame.loc[collapsed, metric] = frame.loc[collapsed, metric].fillna(COLLAPSED)
    return frame


def is_failed(frame: pd.DataFrame) -> pd.Series:
    """Return which cells failed, as a run or in one of their metrics; bool (rows,)."""
    reasons = [c for c in frame if str(c).startswith("failed/")]
    return (frame["status"] == "failed") | frame[reasons].notna().any(axis=1)


def rate_band(rate: float) -> str | None:
    """Return the name of a discovery rate's band, None outside (0, 1]."""
    for name, (above, to) in BANDS.items():
        if above < rate <= to:
            return name
    return None


def by_cell(frame: pd.DataFrame, value: str, seeds: bool = True) -> pd.DataFrame:
    """Return a column's mean per task (rows) and method (columns); NaN where unknown.

    Args:
        frame: Rows of the store, prepared.
        value: Column to average.
        seeds: Whether to keep seeds separate: a row per cell.
    """
    keys = existing_columns(frame, (*TASK, "seed") if seeds else TASK)
    means = fill_collapsed(frame, [value]).groupby([*keys, "method"], dropna=False)[value].mean()
    return means.unstack("method")
