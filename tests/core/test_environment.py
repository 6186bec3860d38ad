"""What a row says of where it ran."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unlearn import __version__
from unlearn.core import environment


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed copy of nothing but the module's name, which `revision` takes for its own."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set inside git hooks
        monkeypatch.delenv(name, raising=False)
    module = tmp_path / "unlearn" / "core" / "environment.py"
    module.parent.mkdir(parents=True)
    module.touch()
    monkeypatch.setattr(environment, "__file__", str(module))
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--no-verify", "-m", "Begin")
    return git(folder, "rev-parse", "HEAD")


def revision() -> str | None:
    return environment.find_revision.__wrapped__()


def check_pair() -> None:
    environment.check_torchvision.__wrapped__()


def test_the_installed_pair_fits() -> None:
    check_pair()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "nms does not exist"),
        ("raise ImportError('first line\\nsecond line')", "first line second line"),
        ("raise AttributeError('no attribute extension')", "no attribute extension"),
        ("raise OSError('undefined symbol')", "undefined symbol"),
        ("raise ImportError", "ImportError"),
    ],
)
def test_a_pair_that_does_not_fit_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    (tmp_path / "torchvision.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    versions = {"torch": "2.13.0+cpu", "torchvision": "0.28.0"}
    monkeypatch.setattr(environment, "_find_version", versions.__getitem__)
    with pytest.raises(ValueError, match=said) as caught:
        check_pair()
    message = str(caught.value)
    assert message.startswith("torch 2.13.0+cpu and torchvision 0.28.0 do not fit")
    assert message.endswith("pip install --force-reinstall torch torchvision")
    assert "\n" not in message


def test_versions_name_what_a_result_depends_on() -> None:
    versions = environment.collect_versions()
    names = "python torch torchvision lightning hydra-core numpy torchmetrics unlearn".split()
    assert set(versions) == set(names)
    assert versions["unlearn"] == __version__
    assert versions["torch"].split("+")[0] == str(torch.__version__).split("+")[0]


def test_a_changed_copy_of_the_versions_changes_no_other_row() -> None:
    environment.collect_versions()["torch"] = "other"
    assert environment.collect_versions()["torch"] != "other"


def test_a_package_that_is_missing_is_said_to_be() -> None:
    assert environment._find_version("no-such-package-of-ours") == "not installed"


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from unlearn.core import environment as e; e.collect_versions(); e.find_revision();"
        "e.get_peak_bytes(); sys.exit(', '.join({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_a_revision_is_the_commit_and_says_if_files_changed(checkout: Path) -> None:
    head = commit(checkout)
    assert revision() == head
    (checkout / "unlearn" / "environment.py").write_text("# changed")
    assert revision() == f"{head}-dirty"


def test_there_is_no_revision_outside_git(checkout: Path) -> None:
    assert revision() is None


def test_there_is_no_revision_before_the_first_commit(checkout: Path) -> None:
    git(checkout, "init", "--quiet")
    assert revision() is None


def test_a_repository_around_an_installed_package_is_not_ours(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(checkout)
    inside = checkout / "venv" / "unlearn" / "core" / "environment.py"
    inside.parent.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(inside))
    assert revision() is None


def test_there_is_no_revision_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(checkout)
    monkeypatch.setenv("PATH", str(checkout / "nothing"))
    assert revision() is None


def test_peak_memory_of_the_process_is_in_bytes() -> None:
    peak = environment.get_peak_bytes()
    # A megabyte is too little for a process with torch; the machine's memory is the limit.
    assert 50 * 2**20 < peak <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_peak_memory_is_the_gpu_s_once_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 123)
    assert environment.get_peak_bytes() == 123
