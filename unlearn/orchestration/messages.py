"""Messages of a command on standard error."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def print_error(line: str) -> None:
    """Write one line to standard error."""
    print(line, file=sys.stderr, flush=True)


class _StderrHandler(logging.Handler):
    """Writes log records to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        print_error(record.getMessage())


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Log to standard error; hydra sets up logging only once a job runs."""
    handler, logger = _StderrHandler(logging.INFO), logging.getLogger("unlearn")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
