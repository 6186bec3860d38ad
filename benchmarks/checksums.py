"""What verifying cache files costs: its share of the demo, both measured in one process."""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import ROOT, Table, clock
from unlearn import cli
from unlearn.core.verified_files import check_file, check_seal, seal_file, write_verified

METHODS = "original,retrain,finetune,gradient_ascent,npo,rem"
DEMO = ["--multirun", "experiment=demo", f"method={METHODS}"]  # of sweeps/demo.sh
MEASURED = (check_file, check_seal, seal_file)
MEGABYTES = 256


def measure_calls(functions: tuple[Callable[..., Any], ...]) -> list[float]:
    """Return a list that collects the seconds of every call of these functions from now on."""
    spent: list[float] = []

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            started = clock()
            try:
                return function(*arguments, **options)
            finally:
                spent.append(clock() - started)

        return call

    for function in functions:
        wrapped = wrap(function)
        for module in list(sys.modules.values()):
            for name, value in list(vars(module).items()):
                if value is function:
                    setattr(module, name, wrapped)
    return spent


def run_demo() -> tuple[float, float, int]:
    """Run the demo's sweep here; return seconds in verification, of all, and verified files."""
    import unlearn.data.datasets.store_index
    import unlearn.methods.localization.mask
    import unlearn.training.callbacks  # noqa: F401

    spent, started = measure_calls(MEASURED), clock()
    sys.argv = ["unlearn.py", *DEMO]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            cli.unlearn_main()
    except SystemExit as end:
        if end.code:
            raise
    return sum(spent), clock() - started, len(spent)


def measure_speed() -> tuple[float, float]:
    """Return gigabytes per second of verification and of ``torch.load`` of a large file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.pt"
        content = {"w": torch.zeros(MEGABYTES * 250_000)}
        write_verified(path, lambda part: torch.save(content, part))
        seconds = []
        for read in (check_file, lambda p: torch.load(p, weights_only=True)):
            started = time.perf_counter()
            read(path)
            seconds.append(time.perf_counter() - started)
    return MEGABYTES / 1000 / seconds[0], MEGABYTES / 1000 / seconds[1]


def table(rounds: int) -> Table:
    """Return the share of the demo, of each round in a process of its own, and the speed."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.checksums"],
                capture_output=True, text=True, cwd=ROOT, env=os.environ | {"UNLEARN_HOME": home},
            )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        found.append([float(word) for word in done.stdout.split()])
    own, total, files = (statistics.median(column) for column in zip(*found, strict=True))
    speed = [measure_speed() for _ in range(rounds)]
    check, load = (statistics.median(column) for column in zip(*speed, strict=True))
    row = ["demo, six methods", f"{total:.1f}", f"{files:.0f}", f"{own:.3f}", f"{own / total:.3%}"]
    columns = ("(i) verified files", "seconds", "files", "verifying, s", "share")
    note = (
        f"Target: 2 %. Imports count on neither side. A file of {MEGABYTES} MB: verified at "
        f"{check:.1f} GB/s, read by torch.load at {load:.1f} GB/s."
    )
    return Table("(i) verified cache files", columns, [row], note)


if __name__ == "__main__":
    print(*run_demo())
