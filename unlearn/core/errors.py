"""What went wrong with a job: the user's to mend, or a defect; and where it is noted."""

import re
import traceback
from pathlib import Path


def is_interruption(error: BaseException) -> bool:
    """Say whether it was Ctrl-C, which Lightning turns into an exit of its own."""
    return isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)


def format_user_error(error: Exception) -> str | None:
    """Return what the user has to mend, or None for a defect.

    A value or file that our own code refuses; of a config node, a class that is not there, an
    argument that it does not know or lacks, a value that it refuses.
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
    """Say whether a ValueError is a defect: not raised by name in our own files.

    A failed unpacking or ``int("x")`` in our own code is no fault of the user's input either.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, ValueError) or not frames:
        return False
    here = str(Path(__file__).resolve().parents[1])
    line = frames[-1].line or "raise"  # no source at hand: believe it is meant
    return not (frames[-1].filename.startswith(here) and re.search(r"\braise\b", line))


class CollapsedError(RuntimeError):
    """The loss is no longer a number."""


class ConfigError(ValueError):
    """What is wrong with a config, in one line."""
