"""Consoles of rich for text that comes from data."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def make_console(**options: Any) -> "Console":
    """Return a console that prints text as it is: names of classes or files are not markup.

    Args:
        options: Of ``rich.console.Console``.
    """
    from rich.console import Console  # slow to import

    return Console(markup=False, emoji=False, **options)
