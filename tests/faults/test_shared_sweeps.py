"""A sweep that several processes share ends in each of them when all cells are recorded."""

import signal
from pathlib import Path
from typing import Any

import pytest

METHOD = """
import os, pathlib, time
from unlearn.methods.original import Original

def hold():
    home = pathlib.Path(os.environ["UNLEARN_HOME"]).parent
    (home / "begun").touch()
    end = time.monotonic() + 300  # no process outlives a failed test for long
    while not (home / "go").exists() and time.monotonic() < end:
        time.sleep(0.05)

class Held(Original):
    def unlearn(self, model, request, fit):
        hold()
        return model

class Broken(Original):
    def unlearn(self, model, request, fit):
        hold()
        raise RuntimeError("boom")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "held.py").write_text(METHOD)
    group = tmp_path / "conf" / "method"
    group.mkdir(parents=True)
    for name in ("Held", "Broken"):
        (group / f"{name.lower()}.yaml").write_text(f"_target_: held.{name}\n")
    return tmp_path


def waits(process: Any) -> bool:
    return any(line.startswith("waiting for 1 cell that other") for line in process.lines())


def start_two(nursery: Any, home: Path, *sweep: str) -> tuple[Any, Any]:
    """Start a process that holds a cell, then one that waits for it."""
    first = nursery.start(home, *sweep)
    assert first.until((home / "begun").exists), first.lines()
    second = nursery.start(home, *sweep)
    assert second.until(lambda: waits(second)), second.lines()
    return first, second


def test_a_process_waits_for_the_cells_of_others(
    nursery: Any, store: Any, small: tuple[str, ...], home: Path
):
    sweep = ["--multirun", *small, "method=held,original", "save_model=false"]
    first, second = start_two(nursery, home, *sweep)
    assert {row["method"] for row in store(home).table()} == {"original"}  # of the second process
    (home / "go").touch()
    code, lines = second.wait()
    assert code == 0 and lines[-1] == "1 done, 0 failed, 1 skipped", lines
    assert store(home).methods().keys() == {"held", "original"}  # nothing is missing now
    code, lines = first.wait()
    assert code == 0 and lines[-1] == "1 done, 0 failed, 1 skipped", lines


def test_a_cell_whose_process_is_killed_is_run_by_the_one_that_waits(
    nursery: Any, store: Any, small: tuple[str, ...], home: Path
):
    sweep = ["--multirun", *small, "method=held,original", "save_model=false"]
    first, second = start_two(nursery, home, *sweep)
    first.kill()
    assert first.wait()[0] == -signal.SIGKILL
    (home / "go").touch()
    code, lines = second.wait()
    assert code == 0 and lines[-1] == "2 done, 0 failed, 0 skipped", lines
    assert store(home).methods().keys() == {"held", "original"}


def test_a_cell_that_fails_in_every_process_fails_once_in_each(
    nursery: Any, store: Any, small: tuple[str, ...], home: Path
):
    sweep = ["--multirun", *small, "method=broken,original", "save_model=false"]
    first, second = start_two(nursery, home, *sweep)
    (home / "go").touch()
    for process in (first, second):
        code, lines = process.wait()
        assert code == 1, lines
        assert sum("RuntimeError: boom" in line for line in lines) == 1
    assert store(home).methods().keys() == {"original"}


def test_ctrl_c_stops_waiting(nursery: Any, small: tuple[str, ...], home: Path):
    first, second = start_two(nursery, home, "--multirun", *small, "method=held,original")
    second.kill(signal.SIGINT)
    code, lines = second.wait()
    assert code == 130 and lines[-1].startswith("interrupted; finished runs are kept"), lines
    first.kill()
    first.wait()


def test_one_run_that_another_process_runs_has_an_exit_code_of_its_own(
    nursery: Any, small: tuple[str, ...], home: Path
):
    run = [*small, "method=held", "save_model=false"]
    first = nursery.start(home, *run)
    assert first.until((home / "begun").exists), first.lines()
    code, lines = nursery.call(home, *run)
    assert code == 3, lines
    assert len(lines) == 1 and lines[0].startswith("not finished: running in another process: ")
    (home / "go").touch()
    code, lines = first.wait()
    assert code == 0, lines
    assert nursery.call(home, *run)[0] == 0  # recorded


def test_workers_run_what_another_process_leaves(
    nursery: Any, store: Any, small: tuple[str, ...], home: Path
):
    sweep = ["--multirun", *small, "method=held,original", "save_model=false"]
    first = nursery.start(home, *sweep)
    assert first.until((home / "begun").exists), first.lines()
    workers = ["hydra/launcher=joblib", "hydra.launcher.workers=1"]
    second = nursery.start(home, *sweep, *workers, PYTHONPATH=str(home))
    assert second.until(lambda: waits(second), seconds=120), second.lines()
    first.kill()
    first.wait()
    (home / "go").touch()
    code, lines = second.wait()
    assert code == 0 and lines[-1] == "2 done, 0 failed, 0 skipped", lines
    assert store(home).methods().keys() == {"held", "original"}
