"""Standard output and error that can be lost without losing a result."""

import codecs
import errno
import os
import sys
from typing import Any

LOST: dict[str, OSError] = {}
"""First error of a stream that can no longer be written, by its name."""


PLAIN = {"±": "+/-", "≤": "<=", "≥": ">=", "×": "x", "−": "-", "≈": "~", "…": "...", "·": "-"}
ENCODING_ERRORS = "unlearn.plain"


class TolerantStream:
    """A text stream; after an error of the operating system, what is written is discarded."""

    def __init__(self, stream: Any, name: str) -> None:
        """Store the stream and its name, "stdout" or "stderr"."""
        self._stream, self._name = stream, name

    def __getattr__(self, key: str) -> Any:
        """Return an attribute of the stream."""
        return getattr(self._stream, key)

    def write(self, text: str) -> int:
        """Write text and return its length."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._discard(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        LOST.setdefault(self._name, error)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())  # what is buffered goes there as well
        os.close(null)


def replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII text in place of characters that an encoding lacks, and where they end."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(PLAIN.get(char, "?") for char in found), error.end


def protect_streams() -> None:
    """Make standard output and error tolerant: a closed pipe or full disk ends no run.

    Closed descriptors are opened on the null device, so that no file of a run gets their number.
    Characters that the encoding lacks are replaced.
    """
    codecs.register_error(ENCODING_ERRORS, replace_unencodable)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor is this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, TolerantStream):
            continue
        if stream is None:
            stream = open(number, "w", encoding="utf-8", closefd=False)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ENCODING_ERRORS)
        setattr(sys, name, TolerantStream(stream, name))


def describe_lost_output() -> str | None:
    """Return a line if standard output was lost for another reason than a closed pipe."""
    error = LOST.get("stdout")
    if error is None or error.errno == errno.EPIPE:
        return None
    return f"standard output cannot be written: {error.strerror}"
