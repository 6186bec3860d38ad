"""Tables on the terminal, whatever characters it can encode."""

import codecs
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PLAIN = {"±": "+/-", "≤": "<=", "≥": ">=", "×": "x", "−": "-", "≈": "~", "…": "...", "·": "-"}
ERRORS = "unlearn.plain"


def replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII text in place of characters that an encoding lacks, and where they end."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(PLAIN.get(char, "?") for char in found), error.end


def make_console(**options: Any) -> "Console":
    """Return a rich console on standard output, which then accepts every character.

    Args:
        options: Of ``rich.console.Console``.
    """
    from rich.console import Console

    codecs.register_error(ERRORS, replace_unencodable)
    stream: Any = sys.stdout
    if hasattr(stream, "reconfigure") and stream.errors == "strict":
        stream.reconfigure(errors=ERRORS)
    return Console(**options)
