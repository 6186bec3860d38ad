"""Tables as text: on the terminal, CSV, Markdown and LaTeX."""

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from unlearn.core.console import make_console
from unlearn.core.files import write_text_atomically
from unlearn.core.spreadsheets import escape_formula
from unlearn.reporting.tables.summary import ERRORS, TITLES, rank_best, select_shown

DIGITS = {"seconds": "{:.1f}", "rank": "{:.2f}", "worst": "{:.2f}", "time": "{:.2f}"}
DIGITS |= {
    "forget_set/entanglement": "{:.0f}",
    "relative_seconds": "{:.2f}",
    "relearn_steps": "{:.1f}",
}
DIGITS |= {"relearn_steps_retrained": "{:.1f}"}
DIGITS |= {"gradient/forget": "{:.2e}", "gradient/retain": "{:.2e}"}
DIGITS |= {"p": "{:.2g}", "p_holm": "{:.2g}", "found": "{:.0f}"}
NOTE = " note"
"""Key in ``attrs`` of a table: a sentence below it. It is no name of a column."""
MARK = {1: r"\textbf{%s}", 2: r"\textcolor{blue}{%s}"}
LATEX = str.maketrans(
    {char: "\\" + char for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {
        "<": "$<$",
        ">": "$>$",
        "±": r"$\pm$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "−": "$-$",
        "≈": r"$\approx$",
    }
)


def text_table(table: pd.DataFrame, errors: bool = True) -> pd.DataFrame:
    """Return a table as text, ``mean ± error``, without uninformative columns."""
    names = [str(c) for c in table]
    groups = names[: names.index("n")] if "n" in names else names[:1]
    out = {}
    for name in select_shown(table):
        known = [name + end for end in ERRORS if errors and name + end in table]
        sems = table[known[0]] if known else [math.nan] * len(table)
        usual = "{:.1f}" if "localization" in table and f"{name}_ci95" in table else "{:.3f}"
        digits = "{:g}" if name in groups else DIGITS.get(name, usual)
        absent = (
            " ± n/a" if known and known[0].endswith("_ci95") else ""
        )  # intervals are required here
        title = table.attrs.get(name, TITLES.get(name, name))
        out[title] = [
            _format_number(v, float(e), digits, absent)
            for v, e in zip(table[name], sems, strict=True)
        ]
    return pd.DataFrame(out)


def _format_number(value: object, error: float, digits: str, absent: str = "") -> str:
    if value is None or value != value:
        return "-"
    if not isinstance(value, float):
        return str(value)
    text = digits.format(value)
    return text + absent if math.isnan(error) else f"{text} ± {digits.format(error)}"


def _text_columns(table: pd.DataFrame, text: pd.DataFrame) -> list[str]:
    """Return the text columns, which are left-aligned."""
    words = {
        table.attrs.get(str(c), TITLES.get(str(c), str(c)))
        for c in table
        if not pd.api.types.is_numeric_dtype(table[c])
    }
    return [str(c) for c in text if c in words]


def print_table(
    table: pd.DataFrame, title: str, console: Console | None = None, errors: bool = True
) -> None:
    """Print a table, in full width unless the output is a terminal."""
    if console is None:
        fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
        console = make_console() if fixed else make_console(width=200)
    text = text_table(table, errors)
    left = _text_columns(table, text)
    out = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in text:
        wide = len(str(column)) > 10
        head = "\n".join(str(column).rsplit(" ", 1)) if wide else str(column)
        out.add_column(head, justify="left" if column in left else "right", overflow="fold")
    for row in text.itertuples(index=False):
        out.add_row(*map(str, row))
    console.print(out)


def print_notes(lines: Sequence[str]) -> None:
    """Print lines below a table."""
    console = make_console(width=200)
    for line in lines:
        console.print(f"  {line}", highlight=False)


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV, unrounded, missing values empty, text that is no formula."""
    return escape_formulas(table).to_csv(index=False, lineterminator="\n")


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text, in titles too, is not read as a formula by spreadsheets."""
    safe = table.rename(columns=lambda name: escape_formula(str(name)))
    return safe.map(escape_formula)


def to_markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown."""
    text = text_table(table)
    left = _text_columns(table, text)
    rules = ["---" if c in left else "--:" for c in text]
    rows = [list(text.columns), rules, *text.itertuples(index=False)]
    cell = {ord("|"): r"\|"}
    lines = ["| " + " | ".join(str(v).translate(cell) for v in r) + " |\n" for r in rows]
    return "".join(lines) + (f"\n{table.attrs[NOTE]}.\n" if NOTE in table.attrs else "")


def to_latex(table: pd.DataFrame) -> str:
    r"""Return a table for ``booktabs`` and ``xcolor``: best bold, second best blue."""
    text = text_table(table)
    left = _text_columns(table, text)
    places = {TITLES.get(name, name): rows for name, rows in rank_best(table).items()}
    lines = [r"% needs \usepackage{booktabs} and \usepackage{xcolor}"]
    lines += [rf"\begin{{tabular}}{{{''.join('l' if c in left else 'r' for c in text)}}}"]
    lines += [r"\toprule", " & ".join(_escape_latex(str(c)) for c in text) + r" \\", r"\midrule"]
    for i, row in enumerate(text.to_dict("records")):
        cells = [
            MARK.get(places.get(str(column), {}).get(i, 0), "%s") % _escape_latex(value)
            for column, value in row.items()
        ]
        lines.append(" & ".join(cells) + r" \\")
    lines.append(r"\bottomrule")
    if NOTE in table.attrs:
        note = _escape_latex(table.attrs[NOTE])
        lines.append(rf"\multicolumn{{{len(text.columns)}}}{{l}}{{\footnotesize {note}.}} \\")
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _escape_latex(text: str) -> str:
    return text.translate(LATEX).replace("healed x utility", r"healed $\times$ utility")


def save_tables(table: pd.DataFrame, stem: Path, latex: bool = True) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX.

    Args:
        table: To write.
        stem: Path without suffix.
        latex: Write LaTeX too.

    Returns:
        The paths.
    """
    contents = {".csv": to_csv(table), ".md": to_markdown(table)}
    contents |= {".tex": to_latex(table)} if latex else {}
    paths = []
    for suffix, content in contents.items():
        path = stem.with_name(stem.name + suffix)
        write_text_atomically(path, content)
        paths.append(path)
    return paths
