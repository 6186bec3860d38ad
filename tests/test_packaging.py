"""The wheel by itself: what it holds, and that its commands work from an empty folder."""

import ast
import os
import re
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
COMMANDS = ["unlearn-train", "unlearn-run", "unlearn-evaluate"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(REPOSITORY)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; heavy packages are borrowed, not installed again."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    return folder


def run(folder: Path, name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    ours = ("PYTHON", "UNLEARN_")  # paths of the one who runs the tests
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        [str(folder / "bin" / name), *arguments], capture_output=True, text=True, cwd=cwd,
        timeout=120, env=environment | {"COLUMNS": "200"},
    )  # fmt: skip


def test_the_wheel_holds_package_and_configs_and_no_script(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"unlearn", "hydra_plugins"}
    for path in (REPOSITORY / "conf").rglob("*.yaml"):
        assert f"unlearn/conf/{path.relative_to(REPOSITORY / 'conf')}" in names
    assert "unlearn/py.typed" in names
    assert {f"unlearn/config/shells/complete.{s}" for s in ("bash", "zsh", "fish")} <= set(names)


def test_another_distribution_of_the_same_package_is_named(tmp_path: Path) -> None:
    import unlearn

    assert unlearn._find_other_distribution(tmp_path) is None
    record = tmp_path / "unlearn_lib-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("other/__init__.py,,\n")
    assert unlearn._find_other_distribution(tmp_path) is None
    record.write_text("other/__init__.py,,\nunlearn/__init__.py,,\n")
    line = unlearn._find_other_distribution(tmp_path)
    assert line is not None and "pip uninstall unlearn-lib" in line and "\n" not in line


def test_the_version_is_the_same_everywhere() -> None:
    import unlearn

    for name in ("CITATION.cff", "README.md", "CHANGELOG.md"):
        assert unlearn.__version__ in (REPOSITORY / name).read_text(), name


def test_the_package_is_the_installed_one(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "python", "-c", "import unlearn; print(unlearn.__file__)", cwd=tmp_path)
    assert str(installed) in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_answer_from_an_empty_folder(installed: Path, tmp_path: Path, name: str) -> None:
    done = run(installed, name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"  {name}\n" in done.stdout or f"  {name} " in done.stdout
    assert "python " not in done.stdout  # an installed package has no scripts
    assert "dataset:" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_compose_from_an_empty_folder(installed: Path, tmp_path: Path, name: str) -> None:
    done = run(installed, name, "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dataset:" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_run_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    done = run(
        installed, "unlearn-run", "dataset=synthetic", "model.width=2", "pretraining.epochs=1",
        "pretraining.batch_size=64", "corruption=random_label", "method=finetune",
        "method.epochs=1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "outputs" / "results").glob("r*/row-0.json"))


def declared(*extras: str) -> set[str]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][e] for e in extras)]
    return {canonicalize_name(Requirement(r).name) for group in lists for r in group}


def test_every_import_is_a_declared_dependency() -> None:
    found = set()
    for path in (REPOSITORY / "unlearn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    extras = [e for e in PROJECT["optional-dependencies"] if e != "test"]  # of the product
    owners = metadata.packages_distributions()
    for name in sorted(found - set(sys.stdlib_module_names) - {"unlearn"}):
        packages = {canonicalize_name(owner) for owner in owners.get(name, [])}
        assert packages & declared(*extras), f"{name} is imported, but no dependency brings it"


def test_the_lock_names_every_dependency_and_no_host() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines), lines
    locked = {canonicalize_name(line.split("==")[0]) for line in lines}
    assert not declared("test", "tensorboard") - locked
    assert canonicalize_name(PROJECT["name"]) not in locked
