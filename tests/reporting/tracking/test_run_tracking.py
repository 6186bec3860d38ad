"""What real runs leave in W&B, read back from their offline files."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unlearn.data.task import Task
from unlearn.evaluation.predictions import Predictions
from unlearn.reporting.tracking import run_tracking
from unlearn.storage import record
from unlearn.training import loggers

REPOSITORY = Path(__file__).resolve().parents[3]
TINY = ("dataset=synthetic", "pretraining.epochs=1", "model.width=2", "trainer.accelerator=cpu")


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    own = {"UNLEARN_HOME": str(home / "outputs"), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    return kept | own | more


def call(home: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment(home, **more),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def table(run: dict[str, Any], key: str) -> dict[str, Any]:
    (value,) = [row[key] for row in run["history"] if key in row]
    return json.loads((run["files"] / "files" / value["path"]).read_text())


@pytest.mark.slow
def test_a_sweep_without_key_is_recorded_offline_run_by_run(
    tmp_path: Path, wandb_run: Callable[[Path], dict[str, Any]]
):
    sweep = ["--multirun", *TINY, "corruption=poison", "logger=wandb", "method=finetune,broken"]
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "broken.yaml").write_text("_target_: broken.Broken\n")
    (tmp_path / "broken.py").write_text(
        "from unlearn.methods.original import Original\n"
        "class Broken(Original):\n"
        "    def unlearn(self, model, request, fit):\n"
        "        raise RuntimeError('boom')\n"
    )
    folder = ["--config-dir", str(tmp_path / "conf")]
    key = "0123456789abcdef" * 2 + "01234567"
    result = call(
        tmp_path, sys.executable, "unlearn.py", *folder, *sweep,
        PYTHONPATH=str(tmp_path), WANDB_API_KEY=key, WANDB_BASE_URL="http://127.0.0.1:9",
    )  # fmt: skip
    assert result.stderr.splitlines()[-1].startswith("1 done, 1 failed, 0 skipped"), result.stderr
    said = [line for line in result.stderr.splitlines() if "W&B" in line]
    results = tmp_path / "outputs" / "results"
    assert said == [
        f"W&B: 127.0.0.1 cannot be reached, recording offline; "
        f"send later: wandb sync {results}/*/wandb/offline-*"
    ]
    (row_file,) = results.glob("*/row-0.json")
    row = json.loads(row_file.read_text())
    run = wandb_run(row_file.parent)

    about = run["run"]
    assert about.run_id == row["run_id"] and about.project == "unlearn"
    assert about.display_name == "finetune poison 0.5 synthetic 0"
    assert (about.run_group, about.job_type) == ("synthetic", "finetune")
    assert {"method=finetune", "corruption=poison", "discovery=0.5", "seed=0"} <= set(about.tags)
    assert run["exit"] == 0

    assert run["config"]["method"]["_target_"].endswith("Finetune")
    assert run["config"]["discovery"] == 0.5 and run["config"]["seeds"]["data"] == 0
    assert run["config"]["git_revision"] == row["revision"]
    assert any("train/loss" in step for step in run["history"])  # curves
    assert any("base/healed" in step or "healed" in str(step) for step in run["history"])
    for name in ("healed", "utility", "healed_utility", "test/accuracy"):
        assert run["summary"][name] == pytest.approx(row[name])
    assert run["summary"]["status"] == row["status"]

    recorded = table(run, "row")
    values = dict(zip(recorded["columns"], recorded["data"][0], strict=True))
    assert values["run_id"] == row["run_id"] and values["healed"] == pytest.approx(row["healed"])
    for name in ("before", "after"):
        counts = table(run, f"confusion/test/{name}")
        assert counts["columns"] == ["true", "predicted", "count"]
        right = sum(c for true, said, c in counts["data"] if true == said)
        total = sum(c for _, _, c in counts["data"])
        if name == "after":
            assert right / total == pytest.approx(row["test/accuracy"])
        corrupted = table(run, f"confusion/corrupted/{name}")
        assert sum(c for _, _, c in corrupted["data"]) == 10  # 5 % of 200
    (samples,) = [step["samples"] for step in run["history"] if "samples" in step]
    assert samples["count"] == len(samples["captions"]) == 10
    assert sum(" found: " in line for line in samples["captions"]) == 5
    assert all("->" in line for line in samples["captions"])
    for name in samples["filenames"]:
        assert (run["files"] / "files" / name).stat().st_size > 50

    (failed,) = [p.parent for p in results.glob("*/error.txt")]
    other = wandb_run(failed)
    assert other["run"].job_type == "broken" and other["exit"] == 1
    assert other["run"].run_id == failed.name
    assert not any("samples" in step for step in other["history"])
    for path in (tmp_path / "outputs").rglob("*"):  # no secret in logs, rows, runs
        assert not path.is_file() or key.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_several_loggers_at_once_and_each_job_has_its_own(
    tmp_path: Path, wandb_run: Callable[[Path], dict[str, Any]]
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    several = ["--multirun", *TINY, "method=finetune", "method.epochs=2", "seed=0,1"]
    result = call(
        tmp_path, sys.executable, "unlearn.py", *several, "logger=[csv,wandb,tensorboard]"
    )
    assert result.returncode == 0, result.stderr
    assert sum("W&B: no key found, recording offline" in x for x in result.stderr.splitlines()) == 1
    rows = sorted((tmp_path / "outputs" / "results").glob("*/row-0.json"))
    assert len(rows) == 2
    for row_file in rows:
        folder, row = row_file.parent, json.loads(row_file.read_text())
        text = (folder / "curves" / "metrics.csv").read_text()
        curves = list(csv.DictReader(text.splitlines()))
        wanted = [float(x["train/loss"]) for x in curves if x["train/loss"]]
        assert len(wanted) == 2
        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        seen = events.Scalars("train/loss")
        assert [e.value for e in seen] == pytest.approx(wanted) and [e.step for e in seen] == [1, 2]
        looks = [e.step for e in events.Scalars("model/healed")]
        assert looks == [0, 2]  # epochs of one step: the start and the end
        run = wandb_run(folder)
        assert run["run"].run_id == row["run_id"] and run["exit"] == 0
        losses = [step["train/loss"] for step in run["history"] if "train/loss" in step]
        assert losses == pytest.approx(wanted)  # its own job's, no more and no less
        for key in run_tracking.SPACE:
            assert run["summary"][key] == row[key]
        assert run["summary"]["seconds"] == row["seconds"]


@pytest.mark.slow
def test_a_pretraining_is_tracked_too(tmp_path: Path, wandb_run: Callable[[Path], dict[str, Any]]):
    for _ in range(2):  # the second time the model is in the cache
        result = call(
            tmp_path, sys.executable, "train.py", *TINY, "logger=wandb", WANDB_MODE="offline"
        )
        assert result.returncode == 0, result.stderr
        (told,) = (tmp_path / "outputs").glob("trainings/*/training.json")
        row = json.loads(told.read_text())
        runs = sorted(told.parent.glob("wandb/offline-run-*"))
        run = wandb_run(told.parent)
        assert run["run"].job_type == "train" and run["run"].run_group == "synthetic"
        assert run["config"]["pretraining"]["epochs"] == 1 and run["exit"] == 0
        assert sum("train/loss" in step for step in run["history"]) == 1
        assert run["summary"]["test/accuracy"] == pytest.approx(row["test/accuracy"])
        assert (run["summary"]["corruption"], run["summary"]["seed"]) == ("poison", 0)
        counts = table(run, "confusion/test/before")["data"]
        assert sum(count for *_, count in counts) == 60
        for old in runs:
            shutil.rmtree(old)


def test_confusion_counts_pairs():
    true, said = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 2, 2])
    assert run_tracking.count_confusion(true, said, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


def test_the_grid_shows_found_and_hidden_samples(task: Task):
    found = set(task.forget[0].tolist())
    index = run_tracking.select_samples(task, 8)
    assert len(index) == 8 and sum(int(i) in found for i in index) == 4
    assert len(run_tracking.select_samples(task, 100)) == 20
    images = run_tracking.render_samples(task, index)
    assert images.shape == (8, 12, 12, 1) and images.dtype == torch.uint8
    assert images.float().amax((1, 2, 3)).min() == 255
    before, after = task.train.label, task.truth.clean_label
    line = run_tracking.caption_samples(task, index, before, after)[0]
    i = int(index[0])
    kind = "found" if i in found else "hidden"
    given, true = int(before[i]), int(after[i])
    assert line == f"{i} {kind}: true {true}, given {given}, predicted {given} -> {true}"


def test_matrices_are_of_the_test_set_and_of_the_corrupted_samples(task: Task):
    train = torch.nn.functional.one_hot(task.train.label, 3).float()
    test = torch.nn.functional.one_hot(task.test.label, 3).float()
    found = run_tracking._confusion_matrices(task, Predictions(train, train, test, None))
    assert found["test"].diag().sum() == len(task.test)
    assert found["corrupted"].sum() == 20 and found["corrupted"].diag().sum() == 0


def test_what_is_called_secret_is_not_sent():
    config = {"a": 1, "api_key": "x", "deep": {"token": "y", "b": [2]}}
    assert record.mask_secrets(config) == {"a": 1, "deep": {"b": [2]}}


def test_a_server_that_answers_is_used(monkeypatch: pytest.MonkeyPatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_API_KEY", "k")
        monkeypatch.delenv("http_proxy", raising=False)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert loggers.no_server.__wrapped__() is None
    assert loggers.no_server.__wrapped__() == "127.0.0.1 cannot be reached"


SWEEPS = sorted((REPOSITORY / "sweeps").glob("wandb_*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_the_agents_command_runs(
    tmp_path: Path, path: Path, wandb_run: Callable[[Path], dict[str, Any]]
):
    from wandb.sdk.launch.sweeps import utils

    sweep = yaml.safe_load(path.read_text())
    values = {k: first(v) for k, v in sweep["parameters"].items()}
    values |= {"dataset": "synthetic", "pretraining.epochs": 1, "model.width": 2}
    values |= {"trainer.accelerator": "cpu"} | dict.fromkeys(
        [k for k in values if k.endswith("epochs")], 1
    )
    asked = {"program": sweep["program"], "args": {k: {"value": v} for k, v in values.items()}}
    parts = utils.create_sweep_command_args(asked)
    command = []
    for word in sweep["command"]:  # as the agent replaces them
        name = word.removeprefix("${").removesuffix("}")
        fixed = {"env": ["/usr/bin/env"], "interpreter": [sys.executable]}
        fixed["program"] = [sweep["program"]]
        command += fixed.get(name) or (parts[name] if word != name else [word])
    result = call(tmp_path, *command, WANDB_MODE="offline", WANDB_SWEEP_ID="abcd1234")
    assert result.returncode == 0, result.stderr
    (row_file,) = (tmp_path / "outputs" / "results").glob("*/row-0.json")
    run = wandb_run(row_file.parent)
    name = sweep["metric"]["name"]
    assert run["summary"][name] == pytest.approx(json.loads(row_file.read_text())[name])
    assert run["exit"] == 0


def first(options: dict[str, Any]) -> Any:
    if "values" in options:
        return options["values"][0]
    return options.get("value", options.get("min"))
