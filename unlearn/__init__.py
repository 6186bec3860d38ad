"""Heal image classifiers that learned from bad data, and know in advance which method will work."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from unlearn.api import heal, load
    from unlearn.core.types import Batch, ImageSet, Request
    from unlearn.evaluation.metrics import metric
    from unlearn.methods.base import UnlearningMethod
    from unlearn.storage.results_store import ResultsStore

_PUBLIC = {
    "Batch": "unlearn.core.types",
    "ImageSet": "unlearn.core.types",
    "Request": "unlearn.core.types",
    "UnlearningMethod": "unlearn.methods.base",
    "heal": "unlearn.api",
    "load": "unlearn.api",
    "ResultsStore": "unlearn.storage.results_store",
    "metric": "unlearn.evaluation.metrics",
}
__all__ = [
    "Batch",
    "ImageSet",
    "Request",
    "ResultsStore",
    "UnlearningMethod",
    "__version__",
    "heal",
    "load",
    "metric",
]


_OTHERS = ("unlearn_lib", "unlearn")
"""Other distributions that install a package of the same name, as their metadata folders say it."""


def _find_other_distribution(folder: Path) -> str | None:
    """Return a line if another distribution has installed files into this package, else None.

    Args:
        folder: Folder that holds the package; ``importlib.metadata`` would take longer to import.
    """
    for name in _OTHERS:
        for record in folder.glob(f"{name}-*.dist-info/RECORD"):
            if "\nunlearn/" in f"\n{record.read_text(encoding='utf-8', errors='replace')}":
                named = name.replace("_", "-")
                return (
                    f"unlearn-bench: the distribution {named} installs the package 'unlearn', too, "
                    f"and the two mix: pip uninstall {named}, then pip install --force-reinstall "
                    "--no-deps unlearn-bench"
                )
    return None


if _line := _find_other_distribution(Path(__file__).resolve().parents[1]):
    sys.stderr.write(f"{_line}\n")


def __getattr__(name: str) -> Any:
    """Import public names on first use: the command line must answer before torch is loaded."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unlearn' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
