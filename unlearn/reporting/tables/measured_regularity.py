"""Regularity of a corruption as a number, measured by retrained models that rows hold.

How often a model predicts the given label of corrupted samples that it was not trained on, with the
other half of the corruption in its training set, minus the same without any corrupted sample: rows of
retraining at discovery rates 0.5 and 1.0. The first term is the consistency score of arXiv 2002.03206
for wrong labels; the second removes what any model would say. For attacks whose labels are right,
attack success takes the place of the given labels.
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearn.core.files import write_text_atomically
from unlearn.reporting.tables.facts import REFERENCE, plain_name, read_fact
from unlearn.reporting.tables.frames import existing_columns, on_plane, standard_error

log = logging.getLogger(__name__)

SUPPORTED, ALONE = 0.5, 1.0
"""Discovery rates of the two retrained models: half of the corruption in training, none of it."""
GIVEN, TRUE, SUCCESS = "forget/accuracy_given", "forget/accuracy_true", "attack_success_rate"
SETTING = ("dataset", "model", "corrupted")
KEYS = (*SETTING, "corruption", "options")
COLUMNS = (*KEYS, "n", "supported", "alone", "regularity", "regularity_sem", "by")
OPTIONS = "config/corruption."
SHIPPED = Path(__file__).with_name("measured_regularity.csv")
COLUMN = "measured_regularity"


def describe_options(frame: pd.DataFrame) -> pd.Series:
    """Return the options of each row's corruption as JSON, by name."""
    columns = [
        str(c) for c in frame if str(c).startswith(OPTIONS) and not str(c).endswith("_target_")
    ]

    def describe_row(row: Mapping[Any, Any]) -> str:
        known = {c.removeprefix(OPTIONS): row[c] for c in columns if _is_known(row[c])}
        return json.dumps({k: _simplify(known[k]) for k in sorted(known)})

    records = frame[columns].to_dict("records")
    return pd.Series([describe_row(row) for row in records], frame.index, dtype=object)


def _is_known(value: Any) -> bool:
    return isinstance(value, list | tuple | dict | str) or not pd.isna(value)


def _simplify(value: Any) -> Any:
    """Return a value of a column as plain type; whole numbers that pandas made floats as int."""
    if isinstance(value, np.generic):
        value = value.item()
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole and not isinstance(value, bool) else value


def measure_regularity(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the measured regularity of each corruption that was retrained at both rates.

    Args:
        frame: Rows, prepared.

    Returns:
        ``COLUMNS``: setting, corruption and its options, ``n`` seeds, the two terms, their difference
        with its standard error over seeds, and what it was measured ``by``; empty if there are none.
    """
    if frame.empty or GIVEN not in frame or "method" not in frame:
        return pd.DataFrame(columns=list(COLUMNS))
    frame = on_plane(frame)
    plain = frame["method"].astype(str) == frame["method"].map(lambda m: plain_name(str(m)))
    frame = frame[plain & (read_fact(frame, "role") == REFERENCE) & (frame["status"] == "ok")]
    frame = frame.assign(options=describe_options(frame), **{GIVEN: frame[GIVEN].astype(float)})
    rows = []
    for key, group in frame.groupby([*existing_columns(frame, SETTING), "corruption", "options"]):
        by = SUCCESS if _are_labels_right(group) else GIVEN
        seeds = group.groupby(["seed", "discovery"])[by].mean().unstack("discovery")
        if not {SUPPORTED, ALONE} <= set(seeds):
            continue
        pairs = seeds[[SUPPORTED, ALONE]].astype(float).dropna()
        if pairs.empty:
            continue
        gap = pairs[SUPPORTED] - pairs[ALONE]
        values = (len(pairs), pairs[SUPPORTED].mean(), pairs[ALONE].mean(), gap.mean())
        named = dict(
            zip([*existing_columns(frame, SETTING), "corruption", "options"], key, strict=True)
        )
        rows.append(named | dict(zip(COLUMNS[5:9], values, strict=True))
                    | {"regularity_sem": standard_error(gap), "by": by})  # fmt: skip
    out = pd.DataFrame(rows, columns=list(COLUMNS))
    return out.sort_values("regularity", ascending=False, kind="stable", ignore_index=True)


def _are_labels_right(group: pd.DataFrame) -> bool:
    """Return whether given and true labels of the forget set agree in every row, with an attack."""
    if SUCCESS not in group or TRUE not in group or group[SUCCESS].isna().any():
        return False
    return bool(np.allclose(group[GIVEN].astype(float), group[TRUE].astype(float), atol=1e-9))


def read_measured(path: Path) -> pd.DataFrame:
    """Return a table written by ``remember_regularity``; empty if there is none or it is no such table."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        return pd.DataFrame(columns=list(COLUMNS))
    if not set(COLUMNS) <= set(table):
        return pd.DataFrame(columns=list(COLUMNS))
    return table[list(COLUMNS)]


def remember_regularity(measured: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return all known values: measured ones, those of earlier calls in ``path``, the package's own.

    New values are written to ``path``, so that they are known when those rows are not selected.
    """
    earlier = read_measured(path)
    known = _first_of_each([measured, earlier])
    text = known.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    if len(measured) and (not path.is_file() or path.read_text() != text):
        try:
            write_text_atomically(path, text)
        except OSError as error:  # the values are still used in this call
            log.warning("measured regularities are not kept: %s", error)
    return _first_of_each([known, read_measured(SHIPPED)])


def read_known(path: Path) -> pd.DataFrame:
    """Return values of earlier calls in ``path`` and the package's own."""
    return _first_of_each([read_measured(path), read_measured(SHIPPED)])


def _first_of_each(tables: list[pd.DataFrame]) -> pd.DataFrame:
    tables = [table for table in tables if len(table)]
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(tables, ignore_index=True).drop_duplicates(list(KEYS), ignore_index=True)


def attach_regularity(frame: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the column ``measured_regularity``, NaN where it is not known.

    A table of cells without the corruptions' options gets values of corruptions that were measured
    with one set of options.
    """
    if frame.empty or not set(SETTING) <= set(frame):
        return frame.assign(**{COLUMN: math.nan})
    keys = list(KEYS)
    if any(str(c).startswith(OPTIONS) for c in frame):
        frame = frame.assign(options=describe_options(frame))
    else:
        keys = list(KEYS[:-1])
        known = known[~known.duplicated(keys, keep=False)]
    values = {tuple(row[k] for k in keys): row["regularity"] for row in known.to_dict("records")}
    found = [
        values.get(tuple(row[k] for k in keys), math.nan) for row in frame[keys].to_dict("records")
    ]
    return frame.drop(columns="options", errors="ignore").assign(**{COLUMN: found})


def label_variants(table: pd.DataFrame) -> pd.Series:
    """Return each corruption's name with those options that differ within it: ``name(option value)``."""
    content = table["options"].map(json.loads)
    varying: dict[str, list[str]] = {}
    for name, group in content.groupby(table["corruption"]):
        every = sorted({key for options in group for key in options})
        varying[str(name)] = [k for k in every if len({str(o.get(k)) for o in group}) > 1]
    labels = [
        _format_variant(str(name), {k: options.get(k) for k in varying[str(name)]})
        for name, options in zip(table["corruption"], content, strict=True)
    ]
    return pd.Series(labels, table.index, dtype=object)


def _format_variant(name: str, options: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{k} {v}' for k, v in options.items())})" if options else name


def tabulate_regularity(measured: pd.DataFrame) -> pd.DataFrame:
    """Return measured values for printing: the corruption's label in place of its options."""
    if measured.empty:
        return pd.DataFrame()
    shown = measured.assign(corruption=label_variants(measured)).drop(columns="options")
    return shown.sort_values("regularity", ascending=False, kind="stable", ignore_index=True)
