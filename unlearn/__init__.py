"""Heal image classifiers that learned from bad data, and know in advance which method will work."""

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


def __getattr__(name: str) -> Any:
    """Import public names on first use: the command line must answer before torch is loaded."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unlearn' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
