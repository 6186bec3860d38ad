"""Sweeps in other processes: workers of this machine, and jobs of a real SLURM."""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hydra_plugins.unlearn_launchers import joblib_launcher
from hydra_plugins.unlearn_launchers.joblib_launcher import build_worker_environments, list_gpus
from hydra_plugins.unlearn_launchers.slurm_launcher import SlurmOptions
from unlearn.config import composition, launcher_choice
from unlearn.config.command_line import parse_command_line

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ("dataset=synthetic", "pretraining.epochs=1", "model.width=2", "save_model=false")
SANDBOX = REPOSITORY.parent / "shared" / "slurm"

# Methods that note where they run, break, are killed as by a machine out of memory, or take long.
METHODS = """
import json, os, pathlib, signal, time
import torch
from unlearn.methods.original import Original

class Noted(Original):
    def unlearn(self, model, request, fit):
        keys = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        note = {k: os.environ.get(k) for k in keys} | {"threads": torch.get_num_threads()}
        note |= {"pid": os.getpid(), "begin": time.time()}
        time.sleep(0.5)
        path = pathlib.Path(os.environ["NOTES"]) / f"{time.monotonic_ns()}.json"
        path.write_text(json.dumps(note | {"end": time.time()}))
        return super().unlearn(model, request, fit)

class Broken(Original):
    def unlearn(self, model, request, fit):
        raise RuntimeError("boom")

class Killed(Original):
    def unlearn(self, model, request, fit):
        os.kill(os.getpid(), signal.SIGKILL)

class Long(Original):
    def unlearn(self, model, request, fit):
        (pathlib.Path(os.environ["NOTES"]) / f"{os.getpid()}.pid").touch()
        time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with methods and experiments of a user's own."""
    (tmp_path / "my_methods.py").write_text(METHODS)
    (tmp_path / "notes").mkdir()
    for kind in ("method", "experiment"):
        (tmp_path / "conf" / kind).mkdir(parents=True)
    for name in ("Noted", "Broken", "Killed", "Long"):
        text = f"_target_: my_methods.{name}\n"
        (tmp_path / "conf" / "method" / f"{name.lower()}.yaml").write_text(text)
    for name, launcher in (("one", "joblib"), ("two", "joblib"), ("other", "basic")):
        text = f"# @package _global_\ndefaults:\n  - override /hydra/launcher: {launcher}\n"
        (tmp_path / "conf" / "experiment" / f"{name}.yaml").write_text(text)
    return tmp_path


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    variables = os.environ | {"UNLEARN_HOME": str(home / "outputs"), "NOTES": str(home / "notes")}
    variables |= {"PYTHONPATH": str(home)}
    folder = ["--config-dir", str(home / "conf"), "--multirun", *TINY]
    return subprocess.Popen(
        [sys.executable, "unlearn.py", *folder, *arguments],
        cwd=REPOSITORY, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def call(home: Path, *arguments: str) -> tuple[int, list[str], str]:
    process = start(home, *arguments)
    output, errors = process.communicate(timeout=240)
    return process.returncode, errors.splitlines(), output


def rows(home: Path) -> Counter[str]:
    """Return how many rows there are of each method; no run has two."""
    lines = (home / "outputs" / "results" / "results.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert len({row["run_id"] for row in found}) == len(found)
    return Counter(row["method"] for row in found)


def waited(ready: Callable[[], object], seconds: float) -> bool:
    """Wait until something holds; say whether it came to."""
    end = time.monotonic() + seconds
    while not ready() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(ready())


def notes(home: Path) -> list[dict]:
    return [json.loads(p.read_text()) for p in sorted((home / "notes").glob("*.json"))]


def test_workers_share_devices_and_cores():
    def made(jobs: int, workers: int | None, devices: list[str], per: int, cores: int) -> list:
        found = build_worker_environments(
            jobs, workers=workers, devices=devices, jobs_per_device=per, cores=cores
        )
        return [(s.get("CUDA_VISIBLE_DEVICES"), s["OMP_NUM_THREADS"]) for s in found]

    assert made(9, None, [], 1, 4) == [(None, "1")] * 4
    assert made(9, 2, [], 1, 5) == [(None, "2")] * 2
    assert made(9, 8, [], 1, 4) == [(None, "1")] * 8
    assert made(1, None, [], 1, 4) == [(None, "4")]  # no more workers than jobs
    assert made(9, None, ["0", "1"], 1, 8) == [("0", "4"), ("1", "4")]
    assert made(9, None, ["0", "1"], 2, 8) == [("0", "2"), ("1", "2"), ("0", "2"), ("1", "2")]
    assert made(9, 6, ["3", "5"], 1, 8) == [("3", "4"), ("5", "4")]  # the rest queues
    assert made(0, None, [], 1, 4) == []


def test_devices_are_those_that_are_visible(monkeypatch: pytest.MonkeyPatch):
    for value, expected in (("2,5", ["2", "5"]), ("", []), ("-1", []), ("GPU-ab", ["GPU-ab"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert list_gpus() == expected
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(joblib_launcher.shutil, "which", lambda name: None)
    assert list_gpus() == []


@pytest.mark.slow
def test_a_sweep_in_workers_has_its_devices_and_survives_a_killed_one(home: Path):
    sweep = ["hydra/launcher=joblib", "hydra.launcher.devices=[3,5]"]
    sweep += ["method=killed,noted,broken"]
    code, lines, _ = call(home, *sweep)
    assert code == 1, lines
    assert rows(home) == {"noted": 1}
    assert lines[-1] == "1 done, 2 failed, 0 skipped; status=true lists them with their errors"
    (killed,) = [line for line in lines if "method=killed" in line and line.startswith("error")]
    assert "the worker process died {SIGKILL(-9)}" in killed
    assert sum("RuntimeError: boom" in line for line in lines) == 1
    (note,) = notes(home)
    assert note["CUDA_VISIBLE_DEVICES"] in ("3", "5")
    _, _, output = call(home, *sweep, "status=true")
    problems = [line for line in output.splitlines() if line.startswith("failed: ")]
    assert len(problems) == 2 and "SIGKILL" in problems[0] and "boom" in problems[1]
    code, lines, _ = call(home, *sweep, "method=noted", "discovery=0.5,1.0")
    assert lines[-1] == "1 done, 0 failed, 1 skipped"  # what is recorded is left alone


@pytest.mark.slow
def test_cores_are_shared_out_unless_threads_are_given(home: Path):
    sweep = ["hydra/launcher=joblib", "hydra.launcher.workers=2", "trainer.accelerator=cpu"]
    code, lines, _ = call(home, *sweep, "method=noted", "trainer.threads=null,3", "seed=0,1")
    assert code == 0, lines
    assert lines[-1] == "4 done, 0 failed, 0 skipped"
    found = notes(home)
    share = str(max(1, (os.cpu_count() or 1) // 2))
    if "LOKY_MAX_CPU_COUNT" not in os.environ and len(os.sched_getaffinity(0)) == os.cpu_count():
        assert {n["OMP_NUM_THREADS"] for n in found} == {share}
    assert [n["threads"] for n in found].count(3) == 2
    for worker in {n["pid"] for n in found}:  # one job at a time
        own = sorted((n for n in found if n["pid"] == worker), key=lambda n: n["begin"])
        assert all(a["end"] <= b["begin"] for a, b in itertools.pairwise(own))
    assert len({n["pid"] for n in found}) == 2


def test_swept_experiments_choose_the_launcher(home: Path):
    folders = ["--config-dir", str(home / "conf")]

    def chosen(*overrides: str) -> list[str]:
        arguments = parse_command_line([*folders, "--multirun", *overrides])
        jobs = composition.expand_overrides("unlearn", arguments)
        return launcher_choice.choose_launcher("unlearn", arguments, jobs)

    assert chosen("experiment=one,two")[:2] == [
        "hydra/launcher=joblib",
        "hydra.launcher.workers=null",
    ]
    assert chosen("experiment=one") == []  # hydra sees it itself
    assert chosen("experiment=one,other", "hydra/launcher=slurm")[0] == "hydra/launcher=slurm"
    code, lines, _ = call(home, "experiment=one,other", "method=original")
    assert code == 2 and len(lines) == 1
    assert (
        "one sweep has one launcher, but experiment=one chooses hydra/launcher=joblib" in lines[0]
    )
    assert "give hydra/launcher=... on the command line" in lines[0]
    # Hydra alone would have run these with its basic launcher.
    code, lines, _ = call(home, "experiment=one,two", "method=original", "corrupted=0.1,0.2")
    assert code == 0, lines
    text = (home / "outputs" / "results" / "multirun.yaml").read_text()
    assert "JoblibLauncher" in text


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_leaves_no_worker(home: Path, sent: signal.Signals):
    sweep = ["hydra/launcher=joblib", "hydra.launcher.workers=1", "method=long", "seed=0,1"]
    process = start(home, *sweep)
    try:
        notes = (home / "notes").glob
        assert waited(lambda: [*notes("*.pid")] or process.poll() is not None, seconds=200)
        assert process.poll() is None, process.communicate()
        (note,) = (home / "notes").glob("*.pid")
        worker = Path("/proc") / note.stem
        assert worker.exists()
        begun = time.monotonic()
        process.send_signal(sent)
        errors = process.communicate(timeout=60)[1]
        assert waited(lambda: not worker.exists(), seconds=60)
        assert time.monotonic() - begun < 30  # a loaded machine included
    finally:
        process.kill()
        process.communicate()
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == codes[sent]
    if sent != signal.SIGKILL:
        assert errors.splitlines()[-1].startswith("interrupted; finished runs are kept")
    assert "Traceback" not in errors


def test_what_slurm_is_asked_for():
    array = SlurmOptions(
        partition="long", minutes=30, memory_gb=1.5, gpus=0, cores=3, parallel=7, requeues=1,
        warning_seconds=60, account=None, setup=["module load cuda"], more={"qos": "high"},
    )  # fmt: skip
    asked = array.build_parameters()
    assert asked["slurm_partition"] == "long" and asked["timeout_min"] == 30
    assert asked["slurm_mem"] == "1536M" and asked["cpus_per_task"] == 3
    assert asked["slurm_array_parallelism"] == 7 and asked["slurm_signal_delay_s"] == 60
    assert asked["slurm_setup"][0] == "export OMP_NUM_THREADS=3"
    assert asked["slurm_setup"][-1] == "module load cuda"
    assert asked["slurm_additional_parameters"] == {"qos": "high"}
    assert "gpus_per_node" not in asked and "slurm_account" not in asked
    with pytest.raises(ValueError, match=r"hydra\.launcher\.minutes must be at least 1, got 0"):
        SlurmOptions(**vars(array) | {"minutes": 0})


def free_pair() -> str:
    """Return the first of two ports that nobody listens on: tests may run side by side."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
                return str(port)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start a real SLURM on loopback, or skip with the reason."""
    if not (SANDBOX / "start.sh").exists():
        pytest.skip("no ../shared/slurm beside the repository")
    own = {"SLURM_SANDBOX": f"/tmp/slurm-test-{os.getpid()}", "SLURM_SANDBOX_PORT": free_pair()}
    variables = os.environ | own | {"SLURM_SANDBOX_INSTALL": "1"}
    started = subprocess.run(
        ["bash", str(SANDBOX / "start.sh")],
        capture_output=True, text=True, env=variables, timeout=300, check=False,
    )  # fmt: skip
    try:
        if started.returncode:
            reason = started.stderr.strip().splitlines()[-1:] or ["no word"]
            pytest.skip(f"SLURM cannot be started here: {reason[0]}")
        for key, value in re.findall(r"^export (\w+)=(.*)$", started.stdout, re.M):
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("PATH", f"{SANDBOX / 'bin'}:{os.environ['PATH']}")
        yield
    finally:
        subprocess.run(
            ["bash", str(SANDBOX / "stop.sh"), "--purge"],
            capture_output=True, env=variables, timeout=120, check=False,
        )  # fmt: skip


SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.memory_gb=0.9", "hydra.launcher.cores=1",
    "hydra.launcher.poll_seconds=0.5",
)  # fmt: skip


def test_every_row_arrives_from_slurm(home: Path, slurm: None, monkeypatch: pytest.MonkeyPatch):
    key = "0123456789abcdef" * 2 + "feedbeef"
    monkeypatch.setenv("WANDB_API_KEY", key)
    code, lines, _ = call(home, *SLURM, "hydra.launcher.partition=main", "method=noted", "seed=0,1")
    assert code == 0, lines
    assert rows(home) == {"noted": 2}
    assert re.fullmatch(r"submitted 2 cells as 2 SLURM jobs: \d+; waiting", lines[0])
    arrived = [x for x in lines if re.search(r"\] (done|collapsed) in SLURM job \d+_[01]: ", x)]
    assert len(arrived) == 2 and lines[-1] == "2 done, 0 failed, 0 skipped"
    found = notes(home)
    assert all(n["CUDA_VISIBLE_DEVICES"] in ("0", "1") for n in found)  # SLURM hands them out
    assert {n["threads"] for n in found} == {1}
    files = [p for p in (home / "outputs").rglob("*") if p.is_file()]
    assert any(p.suffix == ".sh" for p in files)  # what was handed to SLURM
    assert not [p for p in files if key.encode() in p.read_bytes()]


@pytest.mark.slow
def test_a_failed_job_of_slurm_is_shown_and_the_rest_goes_on(home: Path, slurm: None):
    sweep = [*SLURM, "hydra.launcher.partition=main"]
    sweep += ["hydra.launcher.cells_per_job=2", "method=noted,killed", "discovery=0.5,1.0"]
    code, lines, _ = call(home, *sweep)
    assert code == 1, lines
    assert rows(home) == {"noted": 2}
    assert lines[0].startswith("submitted 4 cells as 2 SLURM jobs: ")
    lost = [line for line in lines if line.startswith("error: ")]
    assert len(lost) == 2 and all("FAILED" in line and "Killed" in line for line in lost), lines
    assert lines[-1] == "2 done, 2 failed, 0 skipped; status=true lists them with their errors"

    again = [*sweep, "method=original", "hydra.launcher.wait=false", "hydra.launcher.gpus=0"]
    code, lines, _ = call(home, *again)
    assert code == 0, lines
    assert "status=true to the command to see" in lines[0]
    assert lines[-1] == "0 done, 0 failed, 2 submitted, 0 skipped"
    assert waited(lambda: rows(home) == {"noted": 2, "original": 2}, seconds=200)


def slurm_says(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_a_preempted_training_goes_on_from_its_last_checkpoint(home: Path, slurm: None):
    sweep = [*SLURM, "hydra.launcher.partition=low", "hydra.launcher.gpus=0", "method=original"]
    sweep += ["pretraining.epochs=150", "trainer.checkpoint_seconds=0", "discovery=0.5,1.0"]
    process = start(home, *sweep, "hydra.launcher.cells_per_job=2")
    checkpoints, told = home / "outputs" / "checkpoints", []
    try:
        begun = lambda: [*checkpoints.glob("*/resume.ckpt")] or process.poll() is not None  # noqa: E731
        assert waited(begun, seconds=240) and process.poll() is None, process.communicate()
        blocker = ["sbatch", "-p", "main", "--exclusive", "--mem=3000", "--parsable"]
        urgent = slurm_says(*blocker, "-o", str(home / "urgent.txt"), "--wrap", "sleep 2")

        def over() -> bool:
            told.append(slurm_says("squeue", "-h", "-t", "all", "-o", "%P %T %r"))
            for job in slurm_says("squeue", "-h", "-t", "PD", "-p", "low", "-o", "%A").split():
                # SLURM lets two minutes pass before a requeued job; those are spared here.
                command = ["scontrol", "update", f"jobid={job}", "StartTime=now"]
                subprocess.run(command, capture_output=True, check=False)
            return process.poll() is not None

        assert waited(over, seconds=400), told[-1]
        errors = process.communicate()[1].splitlines()
    finally:
        process.kill()
        process.communicate()
    assert slurm_says("squeue", "-h", "-t", "all", "-j", urgent, "-o", "%T") == "COMPLETED"
    assert process.returncode == 0 and errors[-1] == "2 done, 0 failed, 0 skipped", errors
    assert rows(home) == {"original": 2}
    (log,) = (home / "outputs" / "results" / ".slurm").glob("*.err")
    lines = log.read_text().splitlines()
    assert any("DUE TO PREEMPTION" in line for line in lines), lines
    first, second = [x for x in lines if x.startswith("training the original model")]
    assert first == "training the original model (150 epochs) ..."
    assert re.search(r"\(150 epochs, continuing after epoch [1-9]\d*\)", second)
    (curve,) = checkpoints.glob("*/curves/metrics.csv")
    epochs = [float(line.split(",")[0]) for line in curve.read_text().splitlines()[1:]]
    assert epochs == [float(e) for e in range(1, 151)]
    print(*errors, *dict.fromkeys(told), first, second, sep="\n")
