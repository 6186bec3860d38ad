"""The wheel by itself: what it holds, and that its commands work from an empty folder."""

import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(REPOSITORY)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel; heavy packages are borrowed, not installed again."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    return folder


def run(folder: Path, name: str, *arguments: str, cwd: Path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(folder / "bin" / name), *arguments], capture_output=True, text=True, cwd=cwd,
        timeout=120, env=environment | {"COLUMNS": "200"},
    )  # fmt: skip


def test_the_wheel_holds_package_and_configs_and_no_script(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"unlearn"}
    for path in (REPOSITORY / "conf").rglob("*.yaml"):
        assert f"unlearn/conf/{path.relative_to(REPOSITORY / 'conf')}" in names


def test_the_package_is_the_installed_one(installed, tmp_path):
    done = run(installed, "python", "-c", "import unlearn; print(unlearn.__file__)", cwd=tmp_path)
    assert str(installed) in done.stdout


@pytest.mark.parametrize("name", ["unlearn-train", "unlearn-run", "unlearn-evaluate"])
def test_commands_answer_from_an_empty_folder(installed, tmp_path, name):
    done = run(installed, name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dataset:" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_run_works_without_the_checkout(installed, tmp_path):
    done = run(
        installed, "unlearn-run", "dataset=synthetic", "model.width=2", "pretraining.epochs=1",
        "pretraining.batch_size=64", "corruption=random_label", "method=finetune",
        "method.epochs=1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "outputs" / "results").glob("r*/row-0.json"))
