"""Which cells a process of a shared sweep runs, waits for, and leaves to others."""

import json
from pathlib import Path

import pytest

from unlearn.config import composition
from unlearn.config.command_line import parse_command_line
from unlearn.orchestration.cells import expand_cells, run_lock
from unlearn.orchestration.outcomes import JobCounts
from unlearn.orchestration.progress import Progress
from unlearn.orchestration.runner import JobRunner
from unlearn.orchestration.shared_sweep import SharedSweep
from unlearn.orchestration.stacking.stack_queue import StackQueue

WORDS = ["--multirun", "dataset=synthetic", "method=original", "seed=0,1,2", "model.width=2"]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobRunner:
    monkeypatch.setenv("UNLEARN_HOME", str(tmp_path))
    return make_task()


def make_task(*more: str) -> JobRunner:
    arguments = parse_command_line([*WORDS, *more])
    jobs = composition.expand_overrides("unlearn", arguments)
    cells = list(expand_cells("unlearn", jobs, arguments))
    return JobRunner("unlearn", "unlearn_job", JobCounts(jobs, progress=Progress(cells)))


def write_row(cell) -> None:
    cell.folder.mkdir(parents=True, exist_ok=True)
    row = {"run_id": cell.run_id, "step": 0, "status": "ok"}
    (cell.folder / "row-0.json").write_text(json.dumps(row))


def test_each_cell_is_claimed_once_and_what_nobody_runs_is_left(task: JobRunner):
    shared, cells = SharedSweep(task), task.outcomes.progress.cells
    write_row(cells[0])
    with run_lock(cells[1].folder):
        assert [shared.claim_cell(n) for n in range(3)] == [False, False, True]
    assert shared.wait_for_others() == {1}  # its process has ended without a row
    assert shared.claim_cell(1) and not shared.claim_cell(1)
    assert shared.wait_for_others() == set()  # both were tried here


def test_a_cell_that_was_locked_when_it_started_is_not_given_up(task: JobRunner):
    shared, cells = SharedSweep(task), task.outcomes.progress.cells
    assert all(shared.claim_cell(n) for n in range(3))
    task.outcomes.locked = [cells[2].run_id]
    assert shared.wait_for_others() == {2}
    assert task.outcomes.locked == [] and task.outcomes.exit_code() == 0
    write_row(cells[2])
    assert shared.wait_for_others() == set()


def test_a_process_does_not_wait_for_a_cell_that_it_has_locked_for_a_stack(task: JobRunner):
    shared, cells = SharedSweep(task), task.outcomes.progress.cells
    task.stack_queue = StackQueue()
    assert task.stack_queue._claim_cell(cells[1])
    assert cells[1].is_running() and shared.claim_cell(0) and shared.claim_cell(2)
    assert shared.wait_for_others() == {1}


def test_forced_cells_that_another_process_has_run_are_not_repeated(task: JobRunner):
    task = make_task("force=true")
    shared, cells = SharedSweep(task), task.outcomes.progress.cells
    write_row(cells[0])
    with run_lock(cells[1].folder):
        assert [shared.claim_cell(n) for n in range(3)] == [True, False, True]
        write_row(cells[1])
    assert shared.wait_for_others() == set()


def test_submitted_cells_and_jobs_without_cells_are_not_waited_for(task: JobRunner):
    task.outcomes.submitted = 3
    assert SharedSweep(task).wait_for_others() == set()
    other = JobRunner("train", "pretrain_job", JobCounts([[], []]))
    shared = SharedSweep(other)
    assert [shared.claim_cell(n) for n in (0, 1, 0)] == [True, True, False]
    other.outcomes.locked = ["a"]
    assert shared.wait_for_others() == set() and other.outcomes.exit_code() == 3
