"""What the command line hands to a job; imports nothing heavy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        config: The resolved config, plain types.
        run_id: Hash of what determines the result.
        folder: The job's own.
        names: What the choices are called.
        build: Makes the object of a config node that has a ``_target_``.
        brief: One of many jobs: say little.
    """

    config: dict[str, Any]
    run_id: str
    folder: Path
    names: Mapping[str, str]
    build: Callable[[Any], Any]
    brief: bool = False
