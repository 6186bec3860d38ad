"""Text in CSV files that spreadsheets open."""

from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def escape_formula(value: Any) -> Any:
    """Return a cell's value; text that a spreadsheet would run as a formula gets an apostrophe.

    Numbers are unchanged, also as text.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
