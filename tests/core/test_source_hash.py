"""An edited file of the user changes identities; installed code and this package's do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn.core import source_hash
from unlearn.core.job import NUMBER_FORMATS, identify_code
from unlearn.core.source_hash import find_user_modules, hash_user_code

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(tmp_path)
    source_hash._hash_module.cache_clear()


def hashed(node: object) -> dict[str, str]:
    source_hash._hash_module.cache_clear()
    return hash_user_code(node)


def test_modules_of_classes_and_networks_are_found():
    node = {
        "method": {"_target_": "mine.methods.Fast", "optimizer": {"_target_": "torch.optim.SGD"}},
        "model": {"_target_": "unlearn.models.external.imported_network", "path": "nets.a:build"},
        "parts": [{"_target_": "other.Part", "path": "C:file"}],
    }
    assert find_user_modules(node) == {"mine", "torch", "nets", "other"}
    assert hashed({"_target_": "torch.optim.SGD"}) == {} == hashed({"_target_": "json.loads"})
    assert hashed({"_target_": "no_such_module_here.X"}) == {}


def test_an_edit_in_the_module_or_in_what_it_imports_counts(tmp_path: Path):
    node = {"_target_": "mine_a.Method"}
    (tmp_path / "mine_a.py").write_text("import mine_b\nimport torch\n")
    (tmp_path / "mine_b.py").write_text("X = 1\n")
    (tmp_path / "mine_c.py").write_text("X = 1\n")
    first = hashed(node)
    assert list(first) == ["mine_a"] and hashed(node) == first
    (tmp_path / "mine_c.py").write_text("X = 2\n")
    assert hashed(node) == first
    (tmp_path / "mine_b.py").write_text("X = 2\n")
    assert hashed(node) != first


def test_all_files_of_a_package_count(tmp_path: Path):
    package = tmp_path / "mine_package" / "inner"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("")
    (package / "part.py").write_text("X = 1\n")
    first = hashed({"_target_": "mine_package.inner.Method"})
    (package / "part.py").write_text("X = 2\n")
    assert hashed({"_target_": "mine_package.inner.Method"}) != first


def test_a_module_in_the_working_folder_is_found_by_a_console_script(tmp_path: Path):
    (tmp_path / "mine_here.py").write_text("X = 1\n")
    code = (
        "import sys; sys.path = [p for p in sys.path if p];"
        "from unlearn.core.source_hash import hash_user_code;"
        "print(hash_user_code({'_target_': 'mine_here.X'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert "mine_here" in done.stdout


def test_a_class_of_this_package_is_its_name_and_the_format_of_its_numbers(
    monkeypatch: pytest.MonkeyPatch,
):
    node = {"method": {"_target_": "unlearn.methods.rem.REM", "epochs": 1}}
    assert identify_code(node) == {"method": {"_target_": "REM", "epochs": 1}}
    monkeypatch.setitem(NUMBER_FORMATS, "REM", 2)
    assert identify_code(node)["numbers"] == {"REM": 2}
    assert "numbers" not in identify_code({"method": {"_target_": "unlearn.methods.npo.NPO"}})
