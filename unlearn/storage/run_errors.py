"""Why a run failed, kept in its folder."""

import contextlib
from pathlib import Path


def read_last_line(path: Path) -> str:
    """Return the last line of a kept traceback: what went wrong."""
    text = path.read_text(errors="replace").strip()
    return text.splitlines()[-1] if text else "no traceback"


def write_error(folder: Path, text: str) -> str:
    """Keep why a run failed; return where, or that even this could not be written."""
    path = folder / "error.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        with contextlib.suppress(OSError):  # half of a file
            path.unlink()
        return f"no traceback kept: {error.strerror}"
    return f"traceback: {path}"
