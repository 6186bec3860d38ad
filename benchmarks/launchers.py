"""Seconds per cell through the joblib launcher against one process, as ratios from one run.

The same small sweep each time, into a new folder; its original model is trained before. All take
turns; the middle of the ratios counts. What starting costs is part of it: the fewer cells, the more.

    python -m benchmarks.launchers [cells] [rounds]
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
TASK = (
    "dataset=digits", "method=finetune", "method.epochs=5", "pretraining.epochs=5",
    "trainer.accelerator=cpu", "trainer.threads=1", "save_model=false",
)  # fmt: skip
ENGINES = {
    "one process": (),
    "joblib, 1 worker": ("hydra/launcher=joblib", "hydra.launcher.workers=1"),
    "joblib, 2 workers": ("hydra/launcher=joblib", "hydra.launcher.workers=2"),
}


def sweep(folder: Path, cells: int, engine: tuple[str, ...], checkpoints: Path) -> float:
    """Return the seconds of a sweep, from the command's start to its end.

    Raises:
        RuntimeError: If it did not make all cells.
    """
    seeds = ",".join(str(n) for n in range(cells))
    command = [sys.executable, "unlearn.py", "--multirun", *TASK, f"seeds.unlearn={seeds}"]
    command += [f"paths.checkpoints={checkpoints}", *engine]
    variables = os.environ | {"UNLEARN_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if len(list(folder.glob("results/*/row-0.json"))) != cells:
        raise RuntimeError(done.stderr)
    return seconds


def main() -> None:
    """Print the table."""
    cells, rounds = (int(n) for n in (*sys.argv[1:], *("16", "3")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        sweep(home / "warm-up", 1, (), home / "checkpoints")
        taken = [
            {
                engine: sweep(home / f"{n}-{i}", cells, options, home / "checkpoints")
                for i, (engine, options) in enumerate(ENGINES.items())
            }
            for n in range(rounds)
        ]
    load = f"load {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"
    title = f"{cells} cells, {rounds} rounds ({platform.machine()}, {load})"
    table = Table(title=title, title_justify="left")
    table.add_column("engine")
    for column in ("seconds / cell", "ratio to one process"):
        table.add_column(column, justify="right")
    first = next(iter(ENGINES))
    for engine in ENGINES:
        seconds = statistics.median(t[engine] for t in taken) / cells
        ratio = statistics.median(t[engine] / t[first] for t in taken)
        table.add_row(engine, f"{seconds:.2f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
