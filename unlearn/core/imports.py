"""Importing large packages in less time and memory."""

import atexit
import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SIGNAL = "scipy.signal"


@contextmanager
def import_quickly() -> Iterator[None]:
    """Import packages without searching their objects for cycles, and without ``scipy.signal``.

    Imports make millions of objects that stay; Python's collector would search them again and again.
    They are not searched later, either, until the process ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        with _postpone_signal():
            yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # else nanobind reports its types as leaks
        if enabled:
            gc.enable()


@contextmanager
def _postpone_signal() -> Iterator[None]:
    """Import ``scipy.signal`` on first use.

    torchmetrics, which Lightning imports, imports it (44 MB) only to add the attribute ``hamming``,
    unless there is one.
    """
    spec = None if SIGNAL in sys.modules else _find_spec()
    if spec is None:
        yield
        return
    stand_in: Any = importlib.util.module_from_spec(spec)

    def load_attribute(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_load_signal(stand_in), name)

    stand_in.hamming, stand_in.__getattr__ = None, load_attribute
    sys.modules[SIGNAL] = stand_in
    try:
        yield
    finally:
        _remove(stand_in)


def _find_spec() -> Any:
    try:
        return importlib.util.find_spec(SIGNAL)
    except ImportError:  # no scipy
        return None


def _load_signal(stand_in: ModuleType) -> ModuleType:
    _remove(stand_in)
    return importlib.import_module(SIGNAL)


def _remove(stand_in: ModuleType) -> None:
    if sys.modules.get(SIGNAL) is stand_in:
        del sys.modules[SIGNAL]
