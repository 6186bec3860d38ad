"""A command whose output is lost: results are recorded, and the exit code is that of the runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = (
    "dataset=synthetic", "model.width=2", "pretraining.epochs=1", "trainer.accelerator=cpu",
    "method=original", "save_model=false", "logger=none",
)  # fmt: skip


def call(home: Path, shell: str, command: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``shell``, in which ``"$@"`` is the command."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell, "-", sys.executable, f"{command}.py", *words],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
        env=os.environ | {"UNLEARN_HOME": str(home), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def rows(home: Path) -> list[dict[str, object]]:
    return [json.loads(p.read_text()) for p in sorted(home.glob("results/*/row-0.json"))]


@pytest.mark.parametrize("shell", ['"$@" | true', '"$@" >/dev/full', '"$@" >&- 2>&-'])
def test_a_run_is_recorded_whatever_becomes_of_its_output(shell: str, tmp_path: Path):
    ended = call(tmp_path, shell, "unlearn", *RUN)
    assert ended.returncode == 0, ended.stderr
    assert len(rows(tmp_path)) == 1
    assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
    lost = "standard output cannot be written: No space left on device; results are recorded"
    assert (lost in ended.stderr) is (shell == '"$@" >/dev/full')


def test_a_sweep_into_a_closed_pipe_runs_all_its_cells(tmp_path: Path):
    ended = call(tmp_path, '"$@" 2>&1 | head -1', "unlearn", "--multirun", *RUN, "seed=0,1")
    assert ended.returncode == 0 and len(ended.stdout.splitlines()) == 1
    assert sorted(row["seed"] for row in rows(tmp_path)) == [0, 1]  # type: ignore[type-var]


def test_a_failed_run_keeps_its_exit_code_without_output(tmp_path: Path):
    assert call(tmp_path, '"$@" >&- 2>&-', "unlearn", *RUN, "discovery=7").returncode == 2
    assert call(tmp_path, '"$@" 2>/dev/full', "unlearn", *RUN, "discovery=7").returncode == 2


def test_a_command_that_only_prints_fails_if_it_cannot(tmp_path: Path):
    ended = call(tmp_path, '"$@" >/dev/full', "unlearn", "--help")
    assert ended.returncode == 1
    assert ended.stderr.strip() == (
        "error: standard output cannot be written: No space left on device"
    )
    assert call(tmp_path, '"$@" | head -1', "unlearn", "--help").returncode == 0


def test_names_are_not_markup_and_an_ascii_terminal_gets_replacements(tmp_path: Path):
    ended = call(tmp_path, '"$@"', "unlearn", *RUN, "names.method='[/bold] [red]x'")
    assert ended.returncode == 0, ended.stderr
    assert [row["method"] for row in rows(tmp_path)] == ["[/bold] [red]x"]
    assert "[/bold] [red]x" in ended.stdout
    shown = call(tmp_path, 'PYTHONIOENCODING=ascii LC_ALL=C "$@"', "evaluate")
    assert shown.returncode == 0 and "[/bold] [red]x" in shown.stdout, shown.stderr
    assert shown.stdout.isascii()
