"""Summary tables: mean and standard error over cells, as text, CSV, Markdown and LaTeX."""

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

HEADLINE = ("healed", "utility", "healed_utility", "seconds")
BEST = ("healed", "utility", "healed_utility", "worst")  # columns of which the highest is bold
SEED_ERROR = "healed_utility_seed_sem"
TITLES = {"healed_utility": "healed x utility", "n": "cells", SEED_ERROR: "± seeds"}
COUNTS = ("collapsed", "failed")
LATEX = str.maketrans(
    {char: "\\" + char for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "±": r"$\pm$"}
)


def standard_error(values: pd.Series) -> float:
    """Return the sample deviation (ddof 1) over the root of the number; NaN below two values."""
    values = values.dropna()
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def seed_error(frame: pd.DataFrame, metric: str) -> float:
    """Return the standard error over seeds of the mean over tasks; NaN below two seeds."""
    return standard_error(frame.groupby("seed")[metric].mean())


def counted(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the rows with 0 for the accuracies that a collapsed model does not have.

    Leaving such cells out would flatter the method. A cell that failed stays without a value:
    nothing is known of the model.
    """
    frame = frame.copy()
    collapsed = frame["status"] == "collapsed"
    for metric in metrics:
        frame[metric] = frame[metric].astype(float)  # a column of None alone has no mean else
        if metric != "seconds":
            frame.loc[collapsed, metric] = frame.loc[collapsed, metric].fillna(0.0)
    return frame


def failed(frame: pd.DataFrame) -> pd.Series:
    """Return which cells failed, as a run or in one of their metrics; bool (rows,)."""
    reasons = [c for c in frame if str(c).startswith("failed/")]
    return (frame["status"] == "failed") | frame[reasons].notna().any(axis=1)


def summary(
    frame: pd.DataFrame,
    by: Sequence[str] = ("method",),
    metrics: Sequence[str] = HEADLINE,
) -> pd.DataFrame:
    """Return mean and standard error of each metric per group, best product first.

    Args:
        frame: Rows of the store; accuracies in [0, 1].
        by: Columns to group by.
        metrics: Columns to average.

    Returns:
        The columns ``by``; ``n``, the number of cells; per metric its mean and ``<metric>_sem``,
        NaN for one cell; with ``healed_utility`` also its error over seeds alone and its lowest
        cell; the number of cells that collapsed (counted as 0) and failed (left out of means).

    Raises:
        ValueError: If there are no rows or a column is absent.
    """
    missing = [c for c in (*by, *metrics, "status", "seed") if c not in frame]
    if frame.empty or missing:
        raise ValueError(f"no results to show: {len(frame)} rows, missing columns {missing}")
    frame = counted(frame, metrics)
    rows = []
    for key, group in frame.groupby(list(by), dropna=False):
        row: dict[str, Any] = dict(zip(by, key, strict=True)) | {"n": len(group)}
        for metric in metrics:
            row[metric] = group[metric].mean()
            row[f"{metric}_sem"] = standard_error(group[metric])
            if metric == "healed_utility":
                row[SEED_ERROR] = seed_error(group, metric)
        if "healed_utility" in metrics:
            row["worst"] = group["healed_utility"].min()
        row["collapsed"] = int((group["status"] == "collapsed").sum())
        row["failed"] = int(failed(group).sum())
        rows.append(row)
    out = pd.DataFrame(rows)
    if "healed_utility" in out:
        out = out.sort_values("healed_utility", ascending=False, ignore_index=True, kind="stable")
    return out


def cells(frame: pd.DataFrame, value: str = "healed_utility") -> pd.DataFrame:
    """Return the mean of a column per method (rows), corruption and discovery rate (columns).

    What failed throughout is NaN; ``pivot_table`` would drop its row or column.
    """
    task = ["corruption", "discovery"]
    means = counted(frame, [value]).groupby(["method", *task])[value].mean()
    return means.unstack(task).sort_index(axis=1)


def text_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the summary as text, ``mean ± error``, without columns that say nothing."""
    names = [str(c) for c in table]
    groups = names[: names.index("n")]
    out = {}
    for name in names:
        if not _tells(table, name):
            continue
        errors = table[f"{name}_sem"] if f"{name}_sem" in table else [math.nan] * len(table)
        digits = None if name in groups else 1 if name == "seconds" else 3
        out[TITLES.get(name, name)] = [
            _number(v, float(e), digits) for v, e in zip(table[name], errors, strict=True)
        ]
    return pd.DataFrame(out)


def _tells(table: pd.DataFrame, name: str) -> bool:
    """Say whether a column is shown: errors beside their means, counts if there are any."""
    if name == SEED_ERROR:  # of one task it is the error beside the mean
        known = table[name].dropna()
        return not np.allclose(known, table.loc[known.index, "healed_utility_sem"])
    if name == "worst":
        return bool((table["n"] > 1).any())
    return bool(table[name].any()) if name in COUNTS else not name.endswith("_sem")


def _number(value: object, error: float, digits: int | None) -> str:
    """Return a value as text; ``digits`` None: the name of a group."""
    if value is None or value != value:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if digits is None:
        return f"{value:g}"
    text = f"{value:.{digits}f}"
    return text if math.isnan(error) else f"{text} ± {error:.{digits}f}"


def _groups(table: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """Return the columns of text, which are set to the left."""
    texts = {str(c) for c in table if not pd.api.types.is_numeric_dtype(table[c])}
    return [str(c) for c in shown if c in texts]


def print_table(table: pd.DataFrame, title: str, console: Console | None = None) -> None:
    """Print a summary on the terminal, or in full width if the output goes elsewhere."""
    if console is None:
        fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
        console = Console() if fixed else Console(width=200)
    shown = text_table(table)
    left = _groups(table, shown)
    out = Table(title=title, title_justify="left")
    for column in shown:
        out.add_column(str(column), justify="left" if column in left else "right", overflow="fold")
    for row in shown.itertuples(index=False):
        out.add_row(*map(str, row))
    console.print(out)


def to_csv(table: pd.DataFrame) -> str:
    """Return a summary as CSV, unrounded, an absent value as nothing."""
    return table.to_csv(index=False, lineterminator="\n")


def to_markdown(table: pd.DataFrame) -> str:
    """Return a summary as a Markdown table."""
    shown = text_table(table)
    left = _groups(table, shown)
    rules = ["---" if c in left else "--:" for c in shown]
    rows = [list(shown.columns), rules, *shown.itertuples(index=False)]
    cell = {ord("|"): r"\|"}
    return "".join("| " + " | ".join(str(v).translate(cell) for v in r) + " |\n" for r in rows)


def to_latex(table: pd.DataFrame) -> str:
    r"""Return a summary as a table for ``\usepackage{booktabs}``, the best accuracies bold."""
    shown = text_table(table)
    left = _groups(table, shown)
    bold = {TITLES.get(m, m): table[m] == table[m].max() for m in BEST if m in table}
    lines = [rf"\begin{{tabular}}{{{''.join('l' if c in left else 'r' for c in shown)}}}"]
    lines += [r"\toprule", " & ".join(_escape(str(c)) for c in shown) + r" \\", r"\midrule"]
    for i, row in enumerate(shown.to_dict("records")):
        parts = []
        for column, value in row.items():
            best = str(column) in bold and bool(bold[str(column)].iloc[i])
            parts.append(rf"\textbf{{{_escape(value)}}}" if best else _escape(value))
        lines.append(" & ".join(parts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escape(text: str) -> str:
    return text.translate(LATEX).replace("healed x utility", r"healed $\times$ utility")


def save_tables(table: pd.DataFrame, stem: Path) -> list[Path]:
    """Write CSV, Markdown and LaTeX beside one another.

    Args:
        table: Of ``summary``.
        stem: Path without suffix.

    Returns:
        The paths.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    contents = {".csv": to_csv(table), ".md": to_markdown(table), ".tex": to_latex(table)}
    paths = []
    for suffix, content in contents.items():
        path = stem.with_name(stem.name + suffix)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_text(content)
        os.replace(part, path)
        paths.append(path)
    return paths
