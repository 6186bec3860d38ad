"""``trainer=ddp`` on the command line: two processes, one set of files, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ["dataset=synthetic", "model.width=2", "trainer.accelerator=cpu"]
TWO = ["trainer=ddp", "trainer.devices=2"]

pytestmark = pytest.mark.slow


def environment(home: Path) -> dict[str, str]:
    return os.environ | {"UNLEARN_HOME": str(home), "OMP_NUM_THREADS": "1"}


def call(home: Path, script: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *TINY, *more], cwd=REPOSITORY, env=environment(home),
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def files(home: Path) -> list[str]:
    """Return the files under a folder, ids of runs and models replaced by their number."""
    known: dict[str, str] = {}
    found = []
    for path in sorted(p for p in home.rglob("*") if p.is_file()):
        folder, name, *rest = path.relative_to(home).parts
        stem, dot, end = name.partition(".")
        stem = known.setdefault(stem, str(len(known)))
        found.append("/".join([folder, stem + dot + end, *rest]))
    return found


def test_a_multirun_leaves_what_one_process_leaves(tmp_path: Path):
    sweep = ["--multirun", "seed=0,1", "pretraining.epochs=2"]
    one = call(tmp_path / "one", "train.py", *sweep)
    two = call(tmp_path / "two", "train.py", *sweep, *TWO)
    assert two.returncode == one.returncode == 0, two.stderr
    said = [line for line in two.stderr.splitlines() if line.startswith("[")]
    assert len(said) == 2 and all(
        f"[{n + 1}/2]" in x and f"seed={n}" in x for n, x in enumerate(said)
    )
    assert len(two.stderr.splitlines()) == len(one.stderr.splitlines()), two.stderr
    assert len(two.stdout.splitlines()) == len(one.stdout.splitlines()), two.stdout
    assert files(tmp_path / "two") == files(tmp_path / "one")
    curves = sorted((tmp_path / "two").glob("checkpoints/*/curves/metrics.csv"))
    assert [len(path.read_text().splitlines()) for path in curves] == [3, 3]
    losses = [path.read_text().splitlines()[-1] for path in curves]
    assert losses[0] != losses[1]
    keys = {p.name for home in ("one", "two") for p in tmp_path.glob(f"{home}/checkpoints/*/")}
    assert len([k for k in keys if not k.endswith(".lock")]) == 4  # never one model for both


def test_unlearning_starts_from_a_model_of_two_ranks(tmp_path: Path):
    more = ["pretraining.epochs=1", "method=finetune", "method.epochs=1", "evaluation=refined"]
    result = call(tmp_path, "unlearn.py", *more, *TWO)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("results/*/row-0.json")
    row = json.loads(path.read_text())
    assert row["config/trainer.devices"] == 2 and row["original_seconds"] > 0
    known = [json.loads(p.read_text()) for p in tmp_path.glob("checkpoints/*/identity.json")]
    assert len(known) == 2 and sum("forget" in who for who in known) == 1  # retrained too
    assert all(who["together"] == {"devices": 2, "sync_batchnorm": False} for who in known)
    again = call(tmp_path, "unlearn.py", *more, *TWO)
    assert "already recorded" in again.stderr and again.returncode == 0


def children(pid: int) -> set[int]:
    """Return the processes that a process has started, directly or not."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except (OSError, ValueError):
            continue
    found, front = set(), {pid}
    while front:
        front = {child for child, parent in parents.items() if parent in front} - found
        found |= front
    return found


def alive(pids: set[int]) -> set[int]:
    return {p for p in pids if Path(f"/proc/{p}").exists() and state(p) not in "ZX"}


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


@pytest.fixture
def training(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], set[int]]]:
    """A training of two ranks, well on its way."""
    command = [sys.executable, "train.py", *TINY, *TWO, "pretraining.epochs=100000"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(tmp_path), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's "&" ignores it
    ) as process:  # fmt: skip
        end = time.monotonic() + 300
        while not list(tmp_path.glob("checkpoints/*/curves/metrics.csv")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        try:
            yield process, children(process.pid)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["term", "interrupt", "kill", "rank"])
def test_no_process_is_left(training: tuple[subprocess.Popen[str], set[int]], how: str):
    process, started = training
    ranks = {p for p in started if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()}
    assert len(ranks) == 2
    began = time.monotonic()
    if how == "interrupt":
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    elif how == "rank":
        os.kill(max(ranks), signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM if how == "term" else signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    while alive(started) and time.monotonic() - began < 30:
        time.sleep(0.1)
    assert not alive(started)
    lines = [line for line in errors.splitlines() if not line.startswith("training the")]
    if how == "rank":
        assert len(lines) == 1 and "was ended by SIGKILL" in lines[0], errors
        assert process.returncode == 1
    elif how != "kill":
        assert lines == ["interrupted; finished runs are kept, repeat the command to continue"], (
            errors
        )
        assert process.returncode == {"term": 143, "interrupt": 130}[how]
