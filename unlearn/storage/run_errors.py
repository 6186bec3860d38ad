"""Errors of failed runs, stored in their folders."""

import contextlib
from pathlib import Path


def read_last_line(path: Path) -> str:
    """Return the last line of a stored traceback: the error."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:  # removed by a later success, or not readable
        return f"no traceback: {error.strerror}"
    return text.splitlines()[-1] if text else "no traceback"


def write_error(folder: Path, text: str) -> str:
    """Write the error of a failed run; return the path, or a note if writing failed."""
    path = folder / "error.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        with contextlib.suppress(OSError):  # incomplete file
            path.unlink()
        return f"traceback not written: {error.strerror}"
    return f"traceback: {path}"
