"""The store under many processes at once, and under those that are killed."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from unlearn.storage.record import RunRecord
from unlearn.storage.results_store import ResultsStore

REPOSITORY = Path(__file__).resolve().parents[2]

# Writes rows of its own until it has written all, or is killed; says so when it begins.
WRITER = """
import os, signal, sys
from pathlib import Path
from unlearn.storage.record import RunRecord
from unlearn.storage.record import RunRecord
from unlearn.storage.results_store import ResultsStore
root, worker, count, again = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "again"
if sys.argv[4] in ("before", "after"):  # the row file gets its name
    replace = os.replace
    def dies(part, path):
        if sys.argv[4] == "after":
            replace(part, path)
        os.kill(os.getpid(), signal.SIGKILL)
    os.replace = dies
store = ResultsStore(Path(root))
print("ready", flush=True)
sys.stdin.readline()
for i in range(count):
    record = RunRecord(
        run_id=f"worker-{worker:02d}-{i // 2:04d}", step=i % 2, names={"method": "rem"},
        config={"seed": worker, "padding": "x" * 3000}, metrics={"healed": i / count}, status="ok",
        reason=None, seconds=1.0, peak_bytes=1, versions={}, revision=None, created="",
    )
    store.write(record)
    if again and i % 7 == 0:
        store.write(record)
    if i % 10 == 0:
        store.load()
"""


def start(root: Path, worker: int, count: int, again: str = "once") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), str(worker), str(count), again]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=pipe, stdout=pipe)


def go(processes: list[subprocess.Popen[str]]) -> None:
    """Let all begin at once, when the slowest has loaded."""
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def end(process: subprocess.Popen[str]) -> int:
    code = process.wait(timeout=60)
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    return code


def mirrored(store: ResultsStore) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in store.mirror.read_text().splitlines()]
    return sorted((row["run_id"], row["step"]) for row in rows)


def on_disk(store: ResultsStore) -> list[tuple[str, int]]:
    rows = [json.loads(path.read_text()) for path in store.root.glob("*/row-*.json")]
    return sorted((row["run_id"], row["step"]) for row in rows)


def test_many_processes_lose_and_double_nothing(tmp_path: Path):
    processes = [start(tmp_path, worker, 30, "again") for worker in range(8)]
    go(processes)
    assert [end(p) for p in processes] == [0] * 8
    store = ResultsStore(tmp_path)
    expected = [(f"worker-{w:02d}-{i:04d}", s) for w in range(8) for i in range(15) for s in (0, 1)]
    assert mirrored(store) == expected
    frame = pd.read_json(store.mirror, lines=True)
    assert len(frame) == 240 and len(store.load()) == 240


def test_killed_writers_leave_only_whole_rows(tmp_path: Path):
    store = ResultsStore(tmp_path)
    draw = random.Random(0)
    processes = [start(tmp_path, worker, 100_000) for worker in range(5)]
    go(processes)
    for process in processes:
        time.sleep(draw.uniform(0.05, 0.15))
        process.send_signal(signal.SIGKILL)
        assert end(process) == -signal.SIGKILL
    rows = on_disk(store)  # json.loads: all are whole
    assert len(rows) > 5
    last = start(tmp_path, 99, 1)  # the lock of the dead is free
    go([last])
    assert end(last) == 0
    frame = store.load()
    expected = sorted([*rows, ("worker-99-0000", 0)])
    assert sorted(zip(frame["run_id"], frame["step"], strict=True)) == expected
    assert mirrored(store) == expected


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_writer_killed_when_its_row_gets_its_name_hides_no_row(tmp_path: Path, moment: str):
    first, second = start(tmp_path, 1, 1), start(tmp_path, 2, 1, moment)
    go([first, second])
    assert [end(first), end(second)] == [0, -signal.SIGKILL]
    store = ResultsStore(tmp_path)
    assert len(on_disk(store)) == 1 + (moment == "after")
    assert set(mirrored(store)) >= set(on_disk(store))  # what is recorded is listed
    again = start(tmp_path, 2, 1)
    go([again])
    assert end(again) == 0
    assert mirrored(store) == on_disk(store) == [("worker-01-0000", 0), ("worker-02-0000", 0)]


def test_what_could_not_be_written_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(part: Path, path: Path) -> None:
        raise OSError(28, "No space left on device")

    store = ResultsStore(tmp_path)
    store.write(record(1))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("os.replace", full)
        store.write(record(2))
    assert mirrored(store) == on_disk(store) == [("worker-01-0000", 0)]
    assert not list(tmp_path.rglob("*.part"))


def record(worker: int) -> RunRecord:
    return RunRecord(
        run_id=f"worker-{worker:02d}-0000", step=0, names={"method": "rem"}, config={},
        metrics={}, status="ok", reason=None, seconds=1.0, peak_bytes=1, versions={},
        revision=None, created="",
    )  # fmt: skip
