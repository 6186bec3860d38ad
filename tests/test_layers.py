"""Who may import whom."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "unlearn"
LAYERS = [
    {"core"},
    {"config", "storage", "models"},
    {"scoring"},
    {"data", "methods"},
    {"training"},
    {"evaluation"},
    {"reporting"},
    {"pipeline"},
    {"orchestration"},
    {"api", "cli"},
]
"""Packages from left to right: each imports only what is to its left, or itself."""

FORBIDDEN = {
    "config": {"storage", "models"},
    "storage": {"config", "models"},
    "models": {"config", "storage"},
    "data": {"methods"},
    "methods": {"data"},
}
"""Packages of one layer that do not see each other; ``methods`` never sees the truth."""

HYDRA = {"config", "orchestration", "api", "cli"}
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
    for name in imported(path):
        parts = name.split(".")
        if (
            own == "__init__"
            or parts[0] != "unlearn"
            or len(parts) < 2
            or parts[1] == "__version__"
        ):
            continue
        other = parts[1]
        assert other == own or rank(other) <= rank(own), f"{path.name} imports {name}"
        assert other not in FORBIDDEN.get(own, set()), f"{path.name} imports {name}"


def test_the_top_of_the_package_stays_small() -> None:
    names = {p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert names - {"__init__.py"} == {*set().union(*LAYERS) - {"api", "cli"}, "api.py", "cli.py"}


def test_no_import_circles() -> None:
    """Imports at the top of modules have no circle, those within functions left out."""
    modules = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in FILES}
    arrows = {
        name: {
            target
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom)
            for target in (node.module, *(f"{node.module}.{a.name}" for a in node.names))
            if target in modules
        }
        for name, path in modules.items()
    }
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_line_knows_hydra(path: Path) -> None:
    if unit(path) in HYDRA:
        return
    assert not {n.split(".")[0] for n in imported(path)} & {"hydra", "omegaconf"}


def test_core_imports_torch_alone() -> None:
    allowed = {"collections", "concurrent", "dataclasses", "hashlib", "typing", "torch"}
    names = ("types", "stored_images", "prefetch")
    found = set().union(*(imported(PACKAGE / "core" / f"{name}.py") for name in names))
    own = {f"unlearn.core.{name}" for name in names}
    assert {name.partition(".")[0] for name in found - own} <= allowed


def test_checking_a_config_loads_nothing_heavy() -> None:
    code = (
        "import sys, unlearn, unlearn.core.job, unlearn.config.composition, unlearn.config.help, unlearn.cli;"
        "sys.exit(', '.join({'torch', 'lightning', 'pandas', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
