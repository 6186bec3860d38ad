"""The summary of one run on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from unlearn.core.terminal import make_console

CLOSENESS = (("tow", "ToW"), ("tow_mia", "ToW-MIA"), ("mia_gap", "MIA gap"))


def format_headline(row: Mapping[str, Any]) -> str:
    """Return the headline of one run."""
    parts = []
    healed = (("healed", "healed"), ("utility", "utility"), ("healed_utility", "product"))
    for key, title in CLOSENESS if _nothing_to_heal(row) else healed:
        value = row.get(key)
        parts.append(f"{title} {'-' if value is None else f'{value:.3f}'}")
    return ", ".join([*parts, f"{row['seconds']:.1f} s"])


def _nothing_to_heal(row: Mapping[str, Any]) -> bool:
    """Return whether a row has no corruption and is compared with a retrained model."""
    return row.get("healed") is None and row.get("tow") is not None


def print_row(row: Mapping[str, Any], title: str) -> None:
    """Print one run's columns."""
    console = make_console()
    console.print(title)
    out = Table(show_header=False)
    if _nothing_to_heal(row):
        row = {key: value for key, value in row.items() if value is not None}
    for key, value in row.items():
        text = "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
        out.add_row(key, text)
    console.print(out)
