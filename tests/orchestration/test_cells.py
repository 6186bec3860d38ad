"""Cells of a sweep: which runs they are, what became of them, and what is left."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from unlearn.config import composition
from unlearn.config.command_line import parse_command_line
from unlearn.config.identity import run_id_of_config, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.orchestration import progress
from unlearn.orchestration.cells import (
    compute_original_key,
    expand_cells,
    group_by_dataset,
    is_locked,
    list_trained_originals,
    run_lock,
)

FOLDERS = [config_dir()]
SWEEP = [
    "--multirun",
    "dataset=synthetic",
    "method=original,npo",
    "seed=0,1",
    "discovery=0.5,1.0",
    "model.width=2",
]


def cells(*more):
    arguments = parse_command_line([*SWEEP, *more])
    return list(
        expand_cells("unlearn", composition.expand_overrides("unlearn", arguments), arguments)
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_HOME", str(tmp_path))
    return tmp_path


def test_a_cell_is_the_run_that_hydra_would_compose(home):
    found = cells()
    assert len(found) == 8
    with composition.enable_composition(FOLDERS):
        for cell in found:
            config = composition.compose_config("unlearn", list(cell.overrides), FOLDERS)
            assert cell.run_id == run_id_of_config(config)
            assert cell.folder == home / "results" / cell.run_id
            assert cell.names["method"] in " ".join(cell.overrides)
            assert cell.original_key == compute_original_key(to_plain_config(config))
    assert len({c.run_id for c in found}) == 8
    assert len({c.original_key for c in found}) == 2  # one per seed: no rate and no method


def test_values_that_others_refer_to_reach_them(home):
    more = ["method=retrain,rem", "pretraining.epochs=2,3", "seeds.mask=5,6", "corrupted=0.1,20"]
    found = cells(*more, "optimizer@pretraining.optimizer=adam", "discovery=1", "seed=0")
    assert len(found) == 16
    with composition.enable_composition(FOLDERS):
        for cell in found:
            config = composition.compose_config("unlearn", list(cell.overrides), FOLDERS)
            assert cell.run_id == run_id_of_config(config)
    assert len({c.original_key for c in found}) == 8  # the same for both methods


def test_the_launcher_and_its_options_make_no_other_cell(home):
    plain_ids = [cell.run_id for cell in cells()]
    launched = cells("hydra/launcher=joblib", "hydra.launcher.workers=2")
    assert [cell.run_id for cell in launched] == plain_ids


def test_a_sweep_config_brings_its_own_values_and_the_command_line_wins(home):
    arguments = parse_command_line(["sweep=task_space", "method=rem,npo", "--multirun"])
    jobs = composition.expand_overrides("unlearn", arguments)
    assert len(jobs) == 3 * 10 * 2
    assert len({tuple(j) for j in jobs}) == 60
    fewer = parse_command_line(["sweep=task_space", "discovery=0.3,0.6", "seed=4"])
    jobs = composition.expand_overrides("unlearn", fewer)  # sweep= alone makes it a multirun
    assert len(jobs) == 3 * 2
    assert all("seed=4" in job for job in jobs)


def test_a_sweep_may_be_several_grids(home):
    """RUM's table: four methods in three modes, the two choices per part, two references."""
    arguments = parse_command_line(["sweep=rum_digits", "seed=2"])
    found = list(
        expand_cells("unlearn", composition.expand_overrides("unlearn", arguments), arguments)
    )
    assert len(found) == len({c.run_id for c in found}) == 4 * 3 + 2 + 2
    assert len({c.original_key for c in found}) == 1
    last = found[-1].overrides
    assert {"auto_methods=refined_digits", "forget_set.size=120", "seed=2"} <= set(last)
    jobs = composition.expand_overrides(
        "unlearn", parse_command_line(["sweep=rum", "forget_set.group=low"])
    )
    assert all("forget_set.group=low" in job for job in jobs)


def test_cells_of_one_data_set_are_side_by_side_and_else_in_their_order(home):
    words = ["--multirun", "seed=0,1", "dataset=synthetic,digits,mnist", "discovery=0.5,1.0"]
    arguments = parse_command_line(words)
    found = list(
        expand_cells("unlearn", composition.expand_overrides("unlearn", arguments), arguments)
    )
    said = [cell.names["dataset"] for cell in group_by_dataset(found)]
    assert said == ["synthetic"] * 4 + ["digits"] * 4 + ["mnist"] * 4
    assert group_by_dataset(found)[:4] == [c for c in found if c.names["dataset"] == "synthetic"]
    assert group_by_dataset(found[:2]) == found[:2]


def write_row(cell, **values):
    cell.folder.mkdir(parents=True, exist_ok=True)
    row = {"run_id": cell.run_id, "step": 0, "status": "ok"} | values
    (cell.folder / "row-0.json").write_text(json.dumps(row))


def test_states_plan_and_status(home):
    done, lost, broken, busy, *left = cells()
    write_row(done, wall_seconds=2.0, original_seconds=10.0)
    write_row(lost, status="collapsed", reason="loss is nan", wall_seconds=4.0)
    broken.folder.mkdir(parents=True)
    (broken.folder / "error.txt").write_text("Traceback\nRuntimeError: boom\n")
    busy.folder.mkdir()
    everything = [done, lost, broken, busy, *left]
    with run_lock(busy.folder).acquire(timeout=0):
        states = [c.get_state() for c in everything]
        rows, lines = progress.describe_status(everything)
        plan = progress.describe_plan(everything)
    assert states == ["done", "collapsed", "failed", "running", *["missing"] * 4]
    assert busy.get_state() == "missing"  # its process has gone
    assert rows[-1] == ["all", "1", "1", "1", "1", "4"]
    assert any("RuntimeError: boom" in line and str(broken.folder) in line for line in lines)
    assert any("loss is nan" in line for line in lines)
    assert plan[0] == "8 cells: 2 recorded, 1 running, 5 to run"
    assert plan[1] == "original models: 2 needed, 0 cached, 2 to train"
    # five cells; original has rows of 2 and 4 seconds, npo none; two trainings of 10 seconds
    assert plan[-1].startswith("time: about 35 s on one process; no row of npo yet")


def test_a_plan_says_what_trials_cost(home):
    node = {"_target_": "unlearn.methods.auto.Auto", "budget": 1.5, "retraining_epochs": 30}
    node["candidates"] = {"rem": {}, "npo": {}}
    one = replace(cells()[0], content={"method": node})
    lines = progress.describe_auto_cost([one, one, cells()[1]])
    assert len(lines) == 1
    assert "trials of rem, npo cost at most 1.5 retrainings of 30 epochs" in lines[0]


def test_an_estimate_takes_the_median_of_each_method(home):
    found = cells()
    first = [c for c in found if c.names["method"] == "original"]
    other = [c for c in found if c.names["method"] == "npo"]
    for cell, seconds in zip(first[:3], (1.0, 2.0, 9.0), strict=True):
        write_row(cell, wall_seconds=seconds, original_seconds=5.0)
    guess = progress.estimate_time([first[3], *other], first[:3], 1)
    assert guess.cell_seconds == 2.0 + 4 * 2.0
    assert guess.training_seconds == 5.0
    assert guess.unknown_methods == ["npo"]


def test_a_killed_process_frees_its_cell(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from unlearn.orchestration.cells import run_lock\n"
        "with run_lock(Path(sys.argv[1])).acquire(timeout=0): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert is_locked(tmp_path)
    process.kill()
    process.wait()
    process.stdout.close()
    assert not is_locked(tmp_path)


def test_progress_counts_what_others_record(home, monkeypatch):
    found = cells()
    write_row(found[0])
    counted = progress.Progress(found, started=time.monotonic() - 20)
    assert counted.format_line(0) == "1 of 8 done"
    write_row(found[1])
    write_row(found[2])
    assert counted.format_line(0).startswith("3 of 8 done, about 50 s left")
    assert counted.format_line(1).startswith("3 of 8 done, 1 failed, about 2")


def test_durations_are_said_as_a_person_would():
    assert [progress.format_duration(s) for s in (4.4, 600, 9000)] == ["4 s", "10 min", "2.5 h"]


def test_a_sweep_composes_once_per_choice_of_groups(home, monkeypatch):
    made, whole = [], composition._compose_unchecked
    monkeypatch.setattr(
        composition, "_compose_unchecked", lambda *a: made.append(a[1]) or whole(*a)
    )
    arguments = parse_command_line(SWEEP)
    bases = composition.make_config_cache("unlearn", arguments)
    jobs = composition.check_jobs("unlearn", arguments, bases)
    assert len(list(expand_cells("unlearn", jobs, arguments, bases))) == 8
    methods = [[o for o in groups if o.startswith("method")] for groups in made]
    assert sorted(methods) == [[], ["method=npo"], ["method=original"]]  # first, what it sweeps


def test_a_wrong_value_in_the_middle_of_a_sweep_is_found_and_explained(home):
    for wrong, said in (
        ("discovery=0.5,7", r"discovery must be in \(0, 1\], got 7"),
        ("corrupted=20,many", "corrupted must be a number, got many"),
        ("model.widht=2,4", "unknown key 'model.widht'; did you mean 'model.width'"),
        ("hydra.job.chdi=true", "hydra.job.chdi"),
    ):
        with pytest.raises(composition.ConfigError, match=said):
            composition.check_jobs("unlearn", parse_command_line([*SWEEP[:4], wrong]))


def test_states_and_plans_load_nothing_heavy():
    code = (
        "import sys, unlearn.orchestration.cells, unlearn.orchestration.progress;"
        "sys.exit(', '.join({'torch', 'pandas', 'lightning'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_row_that_does_not_count_is_missing_for_state_plan_and_progress(home):
    found = cells()
    for cell, text in zip(found, ("", "[1]", "\0", "{}"), strict=False):
        cell.folder.mkdir(parents=True)
        (cell.folder / "row-0.json").write_text(text)
    write_row(found[4], run_id=found[5].run_id)
    write_row(found[6], status="unknown")
    write_row(found[7], wall_seconds="long", original_seconds=[1])
    assert [cell.is_recorded() for cell in found] == [False] * 7 + [True]
    assert [cell.get_state() for cell in found] == ["missing"] * 7 + ["done"]
    assert all((cell.folder / "row-0.json.broken").exists() for cell in found[:5])
    assert progress.Progress(found).recorded == 1
    plan = progress.describe_plan(found)
    assert plan[0] == "8 cells: 1 recorded, 0 running, 7 to run"
    assert plan[-1] == "time: unknown, no row of this sweep is recorded yet"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff", b"{}", b'{"dataset": 1}'])
def test_a_broken_identity_is_named_and_not_counted(home, caplog, content):
    folder = home / "checkpoints" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "model.pt").touch()
    (folder / "identity.json").write_bytes(content)
    assert list_trained_originals(home / "checkpoints") == set()
    (line,) = caplog.messages
    assert line.startswith(f"{folder / 'identity.json'} is broken and not counted: ")


def test_a_plan_counts_networks_without_corrupted_samples(home):
    plan = progress.describe_plan(cells("clean_only=true"))
    assert "networks without corrupted samples: 2 needed, 0 cached, 2 to train" in plan
    assert not any("without corrupted" in line for line in progress.describe_plan(cells()))
    found = cells("clean_only=true", "corruption=none", "forget_set=random")
    assert not any("without corrupted" in line for line in progress.describe_plan(found))
