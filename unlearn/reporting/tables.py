"""Summary tables: mean and standard error over cells, as text, CSV, Markdown and LaTeX."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

HEADLINE = ("healed", "utility", "healed_utility", "seconds")
TITLES = {"healed_utility": "healed x utility", "n": "cells"}


def standard_error(values: pd.Series) -> float:
    """Return the sample deviation (ddof 1) over the root of the number; NaN below two values."""
    values = values.dropna()
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def seed_error(frame: pd.DataFrame, metric: str) -> float:
    """Return the standard error over seeds of the mean over tasks."""
    return standard_error(frame.groupby("seed")[metric].mean())


def summary(
    frame: pd.DataFrame,
    by: Sequence[str] = ("method",),
    metrics: Sequence[str] = HEADLINE,
) -> pd.DataFrame:
    """Return mean and standard error of each metric per group, best product first.

    A cell without a value (a collapsed model) counts 0 for accuracies: leaving it out would
    flatter the method.

    Args:
        frame: Rows of the store.
        by: Columns to group by.
        metrics: Columns to average.

    Raises:
        ValueError: If there are no rows or a column is absent.
    """
    missing = [c for c in (*by, *metrics) if c not in frame]
    if frame.empty or missing:
        raise ValueError(f"no results to show: {len(frame)} rows, missing columns {missing}")
    frame = frame.copy()
    collapsed = frame["status"] == "collapsed"
    for metric in metrics:
        if metric != "seconds":
            frame.loc[collapsed, metric] = frame.loc[collapsed, metric].fillna(0.0)
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        row: dict[str, Any] = dict(zip(by, key, strict=True)) | {"n": len(group)}
        for metric in metrics:
            row[metric] = group[metric].mean()
            row[f"{metric}_sem"] = standard_error(group[metric])
        if "healed_utility" in metrics:
            row["healed_utility_seed_sem"] = seed_error(group, "healed_utility")
            row["worst"] = group["healed_utility"].min()
        row["collapsed"] = int((group["status"] == "collapsed").sum())
        rows.append(row)
    out = pd.DataFrame(rows)
    order = [m for m in ("healed_utility",) if m in out]
    return out.sort_values(order, ascending=False, ignore_index=True) if order else out


def cells(frame: pd.DataFrame, value: str = "healed_utility") -> pd.DataFrame:
    """Return the mean of a column per method (rows), corruption and discovery rate (columns)."""
    return frame.pivot_table(value, "method", ["corruption", "discovery"], aggfunc="mean")


def text_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the summary as text, ``mean +- error``, for people."""
    out = {}
    for column in table:
        name = str(column)
        if name.endswith("_sem"):
            continue
        errors = table.get(f"{name}_sem")
        digits = 1 if name == "seconds" else 3
        out[TITLES.get(name, name)] = [
            _number(v, None if errors is None else errors.iloc[i], digits)
            for i, v in enumerate(table[name])
        ]
    return pd.DataFrame(out)


def _number(value: Any, error: float | None, digits: int) -> str:
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    text = f"{value:.{digits}f}"
    return text if error is None or math.isnan(error) else f"{text} ± {error:.{digits}f}"


def print_table(table: pd.DataFrame, title: str, console: Console | None = None) -> None:
    """Print a summary on the terminal."""
    shown = text_table(table)
    out = Table(title=title, title_justify="left")
    for column in shown:
        numeric = column in (*HEADLINE, *TITLES.values(), "worst", "collapsed")
        out.add_column(str(column), justify="right" if numeric else "left", no_wrap=True)
    for row in shown.itertuples(index=False):
        out.add_row(*map(str, row))
    (console or Console()).print(out)


def to_markdown(table: pd.DataFrame) -> str:
    """Return a summary as a Markdown table."""
    shown = text_table(table)
    lines = ["| " + " | ".join(map(str, shown.columns)) + " |", "|" + " --- |" * len(shown.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in shown.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    """Return a summary as a booktabs table, the best value of each accuracy bold."""
    shown = text_table(table)
    best = {
        TITLES.get(m, m): int(table[m].to_numpy().argmax())
        for m in ("healed", "utility", "healed_utility", "worst")
        if m in table
    }
    align = "".join("l" if c in ("method", "corruption", "dataset") else "r" for c in shown)
    lines = [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    lines.append(" & ".join(_escape(str(c)) for c in shown) + r" \\" + "\n" + r"\midrule")
    for i, row in enumerate(shown.to_dict("records")):
        parts = []
        for column, value in row.items():
            text = _escape(str(value)).replace("±", r"$\pm$")
            parts.append(rf"\textbf{{{text}}}" if best.get(str(column)) == i else text)
        lines.append(" & ".join(parts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escape(text: str) -> str:
    for char in "&%$#_{}":
        text = text.replace(char, "\\" + char)
    return text


def save_tables(table: pd.DataFrame, stem: Path) -> list[Path]:
    """Write CSV, Markdown and LaTeX beside one another and return the paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    contents = {
        ".csv": table.to_csv(index=False),
        ".md": to_markdown(table),
        ".tex": to_latex(table),
    }
    paths = []
    for suffix, content in contents.items():
        path = stem.with_suffix(suffix)
        part = path.with_name(f".{path.name}.part")
        part.write_text(content)
        part.replace(path)
        paths.append(path)
    return paths
