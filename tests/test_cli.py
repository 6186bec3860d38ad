"""The commands as a user calls them: real processes, real exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from unlearn.config.command_line import flags_first, parse_command_line
from unlearn.core import errors
from unlearn.pipeline import context

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = ("dataset=synthetic", "pretraining.epochs=1", "trainer.accelerator=cpu", "method=original")


def environment(home: Path) -> dict[str, str]:
    return os.environ | {"UNLEARN_HOME": str(home / "outputs"), "OMP_NUM_THREADS": "1"}


def call(home: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"{command}.py", *arguments],
        cwd=REPOSITORY,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=120,
    )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


BAD = [
    ("unlearn", ["discovery=1.5"], "discovery must be in (0, 1], got 1.5"),
    ("unlearn", ["discovery=0"], "discovery must be in (0, 1]"),
    (
        "unlearn",
        ["discovery=abc"],
        "discovery must be a number in (0, 1] or a detector (activation_clustering",
    ),
    ("unlearn", ["discovery=0.1,0.5"], "add --multirun"),
    ("unlearn", ["discoverry=0.5"], "unknown key 'discoverry'; did you mean 'discovery'"),
    ("unlearn", ["method.gama=1"], "unknown key 'method.gama'; did you mean 'method.gamma'"),
    ("unlearn", ["method=remm"], "unknown method 'remm'; did you mean 'rem'"),
    ("unlearn", ["method.optimizer.lr=-1"], "method.optimizer.lr must be a number above 0, got -1"),
    ("unlearn", ["method.optimizer.lr=inf"], "method.optimizer.lr must be a number above 0"),
    ("unlearn", ["method.shared_mask=maybe"], "method.shared_mask must be true or false"),
    ("unlearn", ["method.shared_mask=null"], "got null"),
    ("unlearn", ["method.optimizer=5"], "method.optimizer must be a group of options, got 5"),
    ("unlearn", ["method.epochs=1.5"], "method.epochs must be a whole number of at least 0"),
    ("unlearn", ["corruption.target_class=10"], "corruption.target_class must be in 0..9, got 10"),
    ("unlearn", ["corrupted=99999"], "1..1297 of the 1297 training images"),
    ("unlearn", ["corrupted=inf"], "corrupted must be a share in (0, 1) or a whole number"),
    ("unlearn", ["corrupted=2", "discovery=0.1"], "at least one of 2 corrupted samples"),
    ("unlearn", ["corruption=none"], "corruption must not be none"),
    ("unlearn", ["dataset=imagefolder"], "dataset.root is missing"),
    ("unlearn", ["dataset=imagefolder", "dataset.root=nowhere"], "nowhere does not exist"),
    ("unlearn", ["trainer.precision=fp8"], "trainer.precision must be one of auto"),
    ("unlearn", ["seeds.mask=-1"], "seeds.mask must be a whole number of at least 0, got -1"),
    (
        "unlearn",
        ["corruption=interclass_confusion", "corruption.classes=[3,3]"],
        "corruption.classes must be different classes, got [3, 3]",
    ),
    ("unlearn", ["--multirun", "discovery=0.5,1.5"], "discovery must be in (0, 1], got 1.5"),
    ("unlearn", ["--nonsense"], "unrecognized arguments: --nonsense"),
    ("unlearn", ["--config-dir", "nowhere"], "is not a folder"),
    ("train", ["method=rem"], "unknown key 'method'"),
    ("train", ["pretraining.optimizer.momentum=1"], "momentum must be in [0, 1), got 1"),
    ("evaluate", ["figure=pie"], "figure must be one of comparison"),
    ("evaluate", ["checkpoint=nowhere.pt"], "checkpoint must be a file, got nowhere.pt"),
]


@pytest.mark.parametrize(("command", "arguments", "expected"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input_costs_one_line(
    tmp_path: Path, command: str, arguments: list[str], expected: str
):
    result = call(tmp_path, command, *arguments)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert expected in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("_target_: nowhere.Missing\n", "'nowhere.Missing'"),
        ("_target_: unlearn.methods.original.Original\nepoch: 1\n", "argument 'epoch'"),
    ],
    ids=["no such class", "no such argument"],
)
def test_a_wrong_method_of_the_users_own_costs_one_line(tmp_path: Path, method: str, expected: str):
    write(tmp_path / "conf" / "method" / "mine.yaml", method)
    result = call(tmp_path, "unlearn", "--config-dir", str(tmp_path / "conf"), *TINY, "method=mine")
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert expected in result.stderr
    assert not list((tmp_path / "outputs").glob("results/*"))


def test_a_misspelt_key_in_the_users_own_experiment_costs_one_line(tmp_path: Path):
    write(tmp_path / "conf/experiment/bad.yaml", "# @package _global_\ndiscovry: 0.5\n")
    result = call(tmp_path, "unlearn", "--config-dir", str(tmp_path / "conf"), "experiment=bad")
    assert result.returncode == 2
    assert "unknown key 'discovry'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_recorded_run_is_not_repeated_and_a_failed_one_leaves_a_trace(tmp_path: Path):
    write(
        tmp_path / "code" / "my_method.py",
        "from unlearn.methods.original import Original\n"
        "class Broken(Original):\n"
        "    def unlearn(self, model, request, fit):\n"
        "        raise RuntimeError('boom')\n",
    )
    write(tmp_path / "conf" / "method" / "broken.yaml", "_target_: my_method.Broken\n")
    first = call(tmp_path, "unlearn", *TINY)
    assert first.returncode == 0, first.stderr
    (row,) = (tmp_path / "outputs").glob("results/*/row-0.json")
    again = call(tmp_path, "unlearn", *TINY)
    assert again.returncode == 0
    assert again.stderr.startswith("already recorded: original on synthetic")
    assert "force=true" in again.stderr
    assert json.loads(row.read_text())["run_id"] == row.parent.name

    variable = environment(tmp_path) | {"PYTHONPATH": str(tmp_path / "code")}
    arguments = ["--multirun", "--config-dir", str(tmp_path / "conf"), *TINY[:3]]
    both = subprocess.run(
        [sys.executable, "unlearn.py", *arguments, "method=broken,original"],
        cwd=REPOSITORY,
        env=variable,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = both.stderr.splitlines()
    assert both.returncode == 1, both.stderr
    assert lines[0] == "1 of 2 cells already recorded"
    assert any(line.startswith("[1 of 2 done]") and "method=broken" in line for line in lines)
    assert any("RuntimeError: boom" in line and "error.txt" in line for line in lines)
    assert lines[-1] == "0 done, 1 failed, 1 skipped; status=true lists them with their errors"
    (trace,) = (tmp_path / "outputs").glob("results/*/error.txt")
    assert "my_method.py" in trace.read_text()


def test_training_alone_ends_and_the_second_call_uses_the_cache(tmp_path: Path):
    arguments = [*TINY[:3]]
    first = call(tmp_path, "train", *arguments)
    assert first.returncode == 0, first.stderr
    (note,) = (tmp_path / "outputs").glob("trainings/*/training.json")
    assert Path(json.loads(note.read_text())["checkpoint"]).is_dir()
    assert 0 <= json.loads(note.read_text())["healed"] <= 1
    again = call(tmp_path, "train", *arguments)
    assert again.returncode == 0, again.stderr
    assert "original model: loaded from the cache" in again.stderr


def _unpacked() -> None:
    flags_first([], parse_command_line(["seed=1"]))  # list.remove: nobody raised it by name


def _refused() -> None:
    context.count_corrupted(5, 2)


def _library() -> None:
    json.loads("{")


@pytest.mark.parametrize(
    ("fails", "defect"), [(_unpacked, True), (_library, True), (_refused, False)]
)
def test_only_an_error_that_is_raised_by_name_blames_the_user(
    fails: Callable[[], None], defect: bool
):
    with pytest.raises(ValueError) as caught:
        fails()
    assert errors.is_internal_error(caught.value) is defect


def test_ctrl_c_while_training_says_one_line(tmp_path: Path):
    arguments = [*TINY[:1], TINY[2], "pretraining.epochs=100000"]
    process = subprocess.Popen(
        [sys.executable, "train.py", *arguments],
        cwd=REPOSITORY,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "training the original model" in process.stderr.readline()
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert rest.strip().startswith("interrupted;")
    assert len(rest.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["train", "unlearn", "evaluate"])
def test_help_explains_groups_and_options(tmp_path: Path, command: str):
    result = call(tmp_path, command, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "digits*" in result.stdout
    assert "corrupted: 0.05  # " in result.stdout
    assert result.stdout.count(f"python {command}.py") >= 3
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("question", [["--help"], ["--cfg", "job"]], ids=" ".join)
def test_a_sweep_is_shown_by_its_first_job(tmp_path: Path, question: list[str]):
    result = call(tmp_path, "unlearn", "-m", "method=npo,rem", "discovery=0.3,1", *question)
    assert result.returncode == 0, result.stderr
    assert "discovery: 0.3" in result.stdout
    assert "max_removal_epochs" not in result.stdout  # of rem


def test_help_follows_the_choices(tmp_path: Path):
    result = call(tmp_path, "unlearn", "method=npo", "--help")
    assert "npo*" in result.stdout
    assert re.search(r"  beta: \S+  # inverse temperature of the loss difference", result.stdout)
    assert "max_removal_epochs" not in result.stdout


def test_cfg_job_is_yaml_with_comments(tmp_path: Path):
    title = "words " * 30 + "and: a colon"
    result = call(tmp_path, "evaluate", "--cfg", "job", f'title="{title}"', "where.method=rem")
    content = yaml.safe_load(result.stdout)
    assert content["title"] == title
    assert content["where"] == {"method": "rem"}
    assert "  # title of the table" in result.stdout


def test_resolve_replaces_references(tmp_path: Path):
    result = call(tmp_path, "unlearn", "seed=3", "--cfg", "job", "--resolve")
    assert yaml.safe_load(result.stdout)["seeds"]["data"] == 3
    assert "${" not in result.stdout.replace("# ", "")


def test_two_processes_share_a_sweep_and_status_and_plan_tell_of_it(tmp_path: Path):
    sweep = ["--multirun", *TINY[:3], "method=original,finetune", "discovery=0.5,1.0", "seed=0,1"]
    plan = call(tmp_path, "unlearn", *sweep, "plan=true")
    assert plan.stdout.startswith("8 cells: 0 recorded, 0 running, 8 to run")
    assert not (tmp_path / "outputs").exists()
    pair = [
        subprocess.Popen(
            [sys.executable, "unlearn.py", *sweep, "save_model=false"],
            cwd=REPOSITORY,
            env=environment(tmp_path),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    results = tmp_path / "outputs" / "results"
    while all(p.poll() is None for p in pair):
        time.sleep(0.05)
    assert len(list(results.glob("*/row-0.json"))) == 8  # the first to end has waited for the other
    ends = [p.communicate(timeout=240)[1].splitlines()[-1] for p in pair]
    assert [p.returncode for p in pair] == [0, 0]
    counts = [re.fullmatch(r"(\d) done, 0 failed, (\d) skipped", end) for end in ends]
    rows = (results / "results.jsonl").read_text().splitlines()
    assert len(rows) == len({json.loads(r)["run_id"] for r in rows}) == 8
    assert sum(int(c[1]) for c in counts if c) == 8, ends
    models = (tmp_path / "outputs" / "checkpoints").glob("*/model.pt")
    assert len(list(models)) == 2  # one per seed, whatever the rate and method
    status = call(tmp_path, "unlearn", *sweep, "status=true")
    total = re.search(r"all\s+│\s+(\d) │\s+(\d) │\s+0 │\s+0 │\s+0", status.stdout)
    assert total, status.stdout  # one epoch: a model may be no better than guessing
    assert int(total[1]) + int(total[2]) == 8
