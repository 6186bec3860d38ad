"""Errors of a job: input errors that the user can fix, and internal errors."""

import re
import traceback
from pathlib import Path


def is_interruption(error: BaseException) -> bool:
    """Return whether an error is Ctrl-C, which Lightning turns into an exit of its own."""
    return isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)


def format_user_error(error: Exception) -> str | None:
    """Return the message of an input error that the user can fix; None for an internal error.

    Input errors: a value or file that our code rejects; for a config node, an absent class, an
    unknown or missing argument, or a rejected value.
    """
    if isinstance(error, ValueError | OSError):
        return None if is_internal_error(error) else str(error)
    if type(error).__name__ != "InstantiationException":
        return None
    first, cause = str(error).splitlines()[0], error.__cause__
    if isinstance(cause, ValueError):
        return str(cause)
    if first.startswith("Error locating target"):
        return first.partition(", set env var")[0] + "; is its module on PYTHONPATH?"
    wrong = ("unexpected keyword argument", "required positional", "required keyword-only")
    if isinstance(cause, TypeError) and any(w in str(cause) for w in wrong):
        return str(cause)
    return None


def is_internal_error(error: BaseException) -> bool:
    """Return whether a ValueError is internal: not raised explicitly in our files.

    A failed unpacking or ``int("x")`` in our code is internal, too.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, ValueError) or not frames:
        return False
    here = str(Path(__file__).resolve().parents[1])
    line = frames[-1].line or "raise"  # without source: assume an explicit raise
    return not (frames[-1].filename.startswith(here) and re.search(r"\braise\b", line))


class CollapsedError(RuntimeError):
    """The loss is NaN or infinite."""


class ConfigError(ValueError):
    """An error in a config, as one line."""
