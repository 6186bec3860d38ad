"""Real commands in processes of their own, which a test may kill, interrupt or starve.

A nursery loads the libraries once and forks for every command: a sweep of seconds can then be
killed thirty times.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ("dataset=synthetic", "pretraining.epochs=2", "model.width=2", "trainer.accelerator=cpu")

NURSERY = """
import json, os, resource, signal, sys, threading
import lightning.pytorch, torchvision, sklearn.datasets, hydra, rich.console, filelock
from unlearn import cli
from unlearn.config import composition, launcher_choice
from unlearn.orchestration import cells, progress
from unlearn.orchestration.tuning import tune_job
from unlearn.pipeline import unlearn_job
import unlearn.data.datasets.image_folder, unlearn.methods.finetune
torch = sys.modules["torch"]
torch.set_num_threads(1)

def watch(home, place, number):
    # Die at the n-th file below ``home`` and of that place that is opened to write, renamed, removed.
    left = [number]
    def hook(event, arguments):
        writes = event in ("os.rename", "os.remove")
        if event == "open":
            mode, flags = arguments[1:]
            writes = any(c in (mode or "") for c in "wax+") or bool(flags & (os.O_WRONLY | os.O_RDWR))
        path = str(arguments[0]) if writes else ""
        if path.startswith(home) and place in path and not path.endswith(".lock"):
            left[0] -= 1
            if left[0] <= 0:
                os.write(2, f"killed at {event} {path}".encode())
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def run_one(order):
    os.environ.update(order["environment"])
    sys.path[:0] = order["path"]
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1), os.dup2(output, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    if order["limit"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"],) * 2)
    if order["fatal"]:
        watch(order["environment"]["UNLEARN_HOME"], order["place"], order["fatal"])
    sys.argv = ["unlearn.py", *order["arguments"]]
    try:
        getattr(cli, order["command"] + "_main")()
    except SystemExit as end:
        return end.code or 0
    return 0

print("ready", flush=True)
for line in sys.stdin:
    assert threading.active_count() == 1
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = run_one(order)
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
"""


@dataclass
class Running:
    """A command that was started."""

    nursery: "Nursery"
    pid: int
    output: Path

    def lines(self) -> list[str]:
        return self.output.read_text().splitlines() if self.output.exists() else []

    def wait(self) -> tuple[int, list[str]]:
        """Return the exit code, negative for a signal, and the lines of both streams."""
        return int(self.nursery.ask({"wait": self.pid})), self.lines()

    def kill(self, sent: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, sent)  # not waited for yet, so the number is still its own

    def until(self, ready: Callable[[], object], seconds: float = 60.0) -> bool:
        """Wait until something holds or the command has ended; say whether it holds."""
        end = time.monotonic() + seconds
        while not ready() and time.monotonic() < end:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                break
            time.sleep(0.005)
        return bool(ready())


class Nursery:
    """Starts commands."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, order: dict[str, Any]) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def start(
        self,
        home: Path,
        *arguments: str,
        command: str = "unlearn",
        limit: int | None = None,
        fatal: int = 0,
        place: str = "",
        **environment: str,
    ) -> Running:
        """Start a command.

        Args:
            home: Gets ``outputs``; its methods and ``conf`` are the user's own.
            arguments: Of the command line.
            command: unlearn, train or evaluate.
            limit: Most bytes that a file may get: from there on the disk is full.
            fatal: Die at this write to the outputs, counted from 1.
            place: Only writes to paths with this part count.
            environment: More variables.
        """
        output = home / f"said-{time.monotonic_ns()}.txt"
        own = {"UNLEARN_HOME": str(home / "outputs"), "OMP_NUM_THREADS": "1"} | environment
        conf = ["--config-dir", str(home / "conf")] if (home / "conf").is_dir() else []
        order = {
            "environment": own, "arguments": [*conf, *arguments], "output": str(output),
            "command": command, "limit": limit, "fatal": fatal, "place": place, "path": [str(home)],
        }  # fmt: skip
        return Running(self, int(self.ask(order)), output)

    def call(self, home: Path, *arguments: str, **options: Any) -> tuple[int, list[str]]:
        return self.start(home, *arguments, **options).wait()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "UNLEARN"))}
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY], cwd=REPOSITORY, text=True, env=kept,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    yield Nursery(process)
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()


VARYING = (
    "seconds",
    "created",
    "peak_bytes",
    "revision",
    "sha256",
)  # endings; a commit may come between
PLACES = ("config/paths.", "config/dataset.cache_dir")


@dataclass
class Store:
    """The rows of a home, read without any code of ours."""

    home: Path

    @property
    def results(self) -> Path:
        return self.home / "outputs" / "results"

    def files(self) -> dict[str, str]:
        """Return the text of each row file by run, every one of them whole."""
        found = {p.parent.name: p.read_text() for p in self.results.glob("*/row-0.json")}
        assert all(json.loads(text)["run_id"] == name for name, text in found.items())
        return found

    def mirror(self) -> list[dict[str, Any]]:
        """Return the rows of results.jsonl; a line that was being written is left out."""
        path = self.results / "results.jsonl"
        rows = []
        for line in path.read_text().splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
        return rows

    def table(self) -> list[dict[str, Any]]:
        """Return the rows without what differs from time to time and place to place.

        Row files and their mirror agree, and no line of the mirror is torn or doubled.
        """
        rows = sorted((json.loads(t) for t in self.files().values()), key=lambda r: r["run_id"])
        lines = (self.results / "results.jsonl").read_text().splitlines()
        assert sorted((json.loads(x) for x in lines), key=lambda r: r["run_id"]) == rows
        return [{k: v for k, v in row.items() if not _varies(k)} for row in rows]

    def methods(self) -> dict[str, str]:
        """Return the status of each method's row."""
        return {row["method"]: row["status"] for row in self.table()}

    def trained(self) -> list[Path]:
        return sorted((self.home / "outputs" / "checkpoints").glob("*/model.pt"))

    def parts(self) -> list[Path]:
        """Return files that were never finished."""
        return [p for p in (self.home / "outputs").rglob("*") if p.name.endswith(".part")]


def _varies(column: str) -> bool:
    return column.startswith(PLACES) or column.endswith(VARYING)


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    return SMALL


@pytest.fixture(scope="session")
def store() -> Callable[[Path], Store]:
    return Store
