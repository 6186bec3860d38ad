"""Every column that a metric declares has a definition for the report and the glossary."""

import importlib
import pkgutil

from unlearn import evaluation
from unlearn.reporting.tables.definitions import DEFINITIONS, define_column


def declared() -> set[str]:
    found: set[str] = set()
    for module in pkgutil.walk_packages(evaluation.__path__, "unlearn.evaluation."):
        for value in vars(importlib.import_module(module.name)).values():
            directions = getattr(value, "directions", None)
            if callable(value) and isinstance(directions, dict):
                found |= set(directions)
    return found


def test_every_declared_column_is_defined():
    assert len(declared()) > 60
    assert [name for name in sorted(declared()) if define_column(name) is None] == []
    assert define_column("a column of a user") is None
    assert define_column("seconds") and define_column("test/kl_original")


def test_definitions_are_one_phrase_without_a_full_stop():
    for name, text in DEFINITIONS.items():
        assert text == text.strip() and not text.endswith("."), name
        assert text[0].islower() or text.startswith("ToW"), name
