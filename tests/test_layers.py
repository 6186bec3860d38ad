"""Who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "unlearn"
LAYERS = [
    {"core", "grading"},
    {"task"},
    {"data", "models"},
    {"corruption", "discovery", "forgetting", "forget_sets", "forget_file", "bad_list"},
    {"memorization", "localization", "detection"},
    {"methods"},
    {"training", "checkpoints", "given"},
    {"evaluation", "diagnosis"},
    {"results"},
    {"reporting"},
    {"setting"},
    {"originals", "stacking"},
    {"scoring", "score_job", "diagnose_job", "ahead", "healing", "once", "beside", "sequence"},
    {"choosing", "judging", "references"},
    {"run"},
    {
        "config",
        "schema",
        "rules",
        "validation",
        "bases",
        "arguments",
        "compose",
        "launching",
        "describe",
        "search",
    },
    {"tuning", "cells"},
    {"sweeping", "outcomes", "convoy"},
    {"attempt", "api", "handed_over"},
    {"cli"},
]
LEAVES = {"environment", "job", "problems", "__init__"}
BLIND = {"methods", "localization", "memorization", "detection"}
COMMAND_LINE = {
    "config", "schema", "bases", "arguments", "compose", "launching", "describe", "search", "cells", "attempt",
    "cli", "api"
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rank(name: str) -> int:
    for i, layer in enumerate(LAYERS):
        if name in layer:
            return i
    raise AssertionError(f"unlearn.{name} is in no layer: give it one in LAYERS")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path.name}: import absolutely, not from ."
            names.add(node.module)
            if node.module == "unlearn":
                names |= {f"unlearn.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_layers_to_its_left(path: Path) -> None:
    own = unit(path)
    leaf = own in LEAVES
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "unlearn" or len(parts) < 2 or parts[1] in LEAVES | {"__version__"}:
            continue
        other = parts[1]
        assert not leaf, f"{path.name} is a leaf and imports {name}"
        assert other == own or rank(other) <= rank(own), f"{path.name} imports {name}"
        if own in BLIND:
            unseen = {"task", "corruption", "discovery", "forgetting", "forget_sets", "forget_file"}
            assert other not in unseen, f"{path.name} sees {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_line_knows_hydra(path: Path) -> None:
    if unit(path) in COMMAND_LINE:
        return
    assert not {n.split(".")[0] for n in imported(path)} & {"hydra", "omegaconf"}


def test_core_imports_torch_alone() -> None:
    allowed = {"collections.abc", "dataclasses", "typing", "torch", "torch.utils"}
    assert imported(PACKAGE / "core.py") <= allowed


def test_checking_a_config_loads_nothing_heavy() -> None:
    code = (
        "import sys, unlearn, unlearn.job, unlearn.compose, unlearn.describe, unlearn.cli;"
        "sys.exit(', '.join({'torch', 'lightning', 'pandas', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
