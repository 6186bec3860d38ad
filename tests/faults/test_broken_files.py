"""Files that are torn, of another run or no text: a line each, and the commands go on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recorded(nursery: Any, small: tuple[str, ...], tmp_path_factory: Any) -> tuple[Path, list[str]]:
    """Return a home with four recorded cells, and the command."""
    home = tmp_path_factory.mktemp("recorded")
    sweep = ["--multirun", *small, "method=original,finetune", "seed=0,1", "save_model=false"]
    code, lines = nursery.call(home, *sweep)
    assert code == 0, lines
    return home, sweep


@pytest.fixture
def home(recorded: tuple[Path, list[str]], tmp_path: Path) -> Path:
    shutil.copytree(recorded[0] / "outputs", tmp_path / "outputs")
    return tmp_path


def row_paths(home: Path) -> list[Path]:
    return sorted((home / "outputs" / "results").glob("*/row-0.json"))


def break_rows(home: Path) -> None:
    """Leave one of four rows whole."""
    torn, empty, foreign, whole = row_paths(home)
    foreign.write_text(whole.read_text())
    torn.write_bytes(torn.read_bytes()[:200])
    empty.write_bytes(b"\xff")


def test_broken_rows_are_restored_from_their_lines_by_every_command(
    nursery: Any, store: Any, recorded: tuple[Path, list[str]], home: Path
):
    sweep, before = recorded[1], store(home).table()
    for more, command in (
        (["status=true"], "unlearn"),
        (["plan=true"], "unlearn"),
        ([], "unlearn"),
    ):
        break_rows(home)
        code, lines = nursery.call(home, *sweep, *more, command=command)
        assert code == 0, lines
        told = [x for x in lines if "renamed to row-0.json.broken" in x]
        assert len(told) == 3 and all("restored from results.jsonl" in x for x in told), lines
        assert not any("Traceback" in line for line in lines)
        assert store(home).table() == before
    assert lines[-1] == "0 done, 0 failed, 4 skipped"
    break_rows(home)
    code, lines = nursery.call(home, "figure=none", command="evaluate")
    assert code == 0, lines
    assert store(home).table() == before
    assert len(list(home.rglob("*.broken*"))) == 12  # none was deleted


def test_broken_rows_without_lines_run_again(
    nursery: Any, store: Any, recorded: tuple[Path, list[str]], home: Path
):
    before = store(home).table()
    break_rows(home)
    (home / "outputs" / "results" / "results.jsonl").unlink()
    code, lines = nursery.call(home, *recorded[1], "plan=true")
    assert code == 0 and "4 cells: 1 recorded, 0 running, 3 to run" in lines, lines
    code, lines = nursery.call(home, *recorded[1])
    assert code == 0 and lines[-1] == "3 done, 0 failed, 1 skipped", lines
    nursery.call(home, "figure=none", command="evaluate")
    assert store(home).table() == before


def spoil(home: Path) -> tuple[Path, str]:
    """Break a model's identity, a run's curves and a number of another run's row."""
    identity, *_ = sorted((home / "outputs" / "checkpoints").glob("*/identity.json"))
    identity.write_bytes(identity.read_bytes()[:50])
    first, second, third, _ = row_paths(home)
    for path, content in ((first, b"\x80\0\xff,\n"), (second, b'epoch,"train'), (third, b"")):
        curves = path.parent / "curves" / "metrics.csv"
        curves.parent.mkdir(exist_ok=True)
        curves.write_bytes(content)
    row = json.loads(first.read_text()) | {"wall_seconds": "long", "healed": "much"}
    older = {k: v for k, v in row.items() if k not in ("format", "sha256")}
    first.write_text(json.dumps(older))
    return identity, first.parent.name


def test_a_torn_identity_curves_and_text_for_a_number_end_neither_plan_nor_tables(
    nursery: Any, recorded: tuple[Path, list[str]], home: Path
):
    identity, run_id = spoil(home)
    code, lines = nursery.call(home, *recorded[1], "seed=0,1,2", "plan=true")
    assert code == 0, lines
    assert sum(str(identity) in line and "not counted" in line for line in lines) == 1
    assert any(line.startswith(f"run {run_id}: wall_seconds is not a number") for line in lines)
    assert any(line.startswith("6 cells: 4 recorded") for line in lines), lines
    code, lines = nursery.call(home, "figure=all", command="evaluate")
    assert code == 0, lines
    assert not any("Traceback" in line for line in lines)
    assert any(line.startswith(f"run {run_id}: healed is not a number") for line in lines), lines
    assert sum("skipped broken curves" in line for line in lines) >= 2, lines


def test_tables_are_printed_in_an_ascii_terminal(home: Path):
    variables = os.environ | {"UNLEARN_HOME": str(home / "outputs"), "OMP_NUM_THREADS": "1"}
    variables |= {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "evaluate.py", "figure=none"],
        cwd=REPOSITORY, env=variables, capture_output=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"+/-" in done.stdout and b"finetune" in done.stdout
    assert b"Error" not in done.stderr


def test_a_run_that_is_killed_before_its_row_file_is_restored_and_a_removed_one_runs_again(
    nursery: Any, store: Any, small: tuple[str, ...], tmp_path: Path
):
    run = [*small, "method=original", "save_model=false"]
    code, lines = nursery.call(tmp_path, *run, fatal=1, place="row-0")
    assert code == -signal.SIGKILL, lines
    (row,) = store(tmp_path).mirror()
    assert not store(tmp_path).files()
    code, lines = nursery.call(tmp_path, *run)
    assert code == 0 and len(lines) == 2, lines
    assert lines[0].endswith("row-0.json is absent; restored from results.jsonl")
    assert lines[1].startswith("already recorded: original on synthetic")
    assert json.loads(*store(tmp_path).files().values()) == row
    for more in ([], ["--multirun", "seed=0,1"]):
        shutil.rmtree(store(tmp_path).results / row["run_id"])
        code, lines = nursery.call(tmp_path, *run, *more)
        assert code == 0 and not any("recorded" in line for line in lines), lines
        assert [r["run_id"] for r in store(tmp_path).mirror()].count(row["run_id"]) == 1
