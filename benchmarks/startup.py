"""How long ``--help`` and a wrong option take, and which packages they import."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import Table, alternate

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "torchvision", "lightning", "pandas", "matplotlib", "wandb", "sklearn", "scipy")
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "unlearn.py --help": ["unlearn.py", "--help"],
    "evaluate.py --help": ["evaluate.py", "--help"],
    "unlearn.py method=remm (wrong)": ["unlearn.py", "method=remm"],
    "unlearn.py discovery=7 (wrong)": ["unlearn.py", "discovery=7"],
    "unlearn.py sweep=task_space plan=true": ["unlearn.py", "sweep=task_space", "plan=true"],
}


def spent(words: list[str]) -> tuple[float, float]:
    """Return wall seconds and CPU seconds of a command."""
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, cwd=ROOT)
    wall, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system
    return wall, cpu - before.children_user - before.children_system


def imported(words: list[str]) -> set[str]:
    """Return the modules that a command imports."""
    flags = ["-X", "importtime"]
    done = subprocess.run(
        [sys.executable, *flags, *words], capture_output=True, cwd=ROOT, text=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def table(rounds: int) -> Table:
    """Return seconds and imports of each command."""
    cpu: dict[str, list[float]] = {name: [] for name in COMMANDS}

    def measured(name: str) -> float:
        wall, own = spent(COMMANDS[name])
        cpu[name].append(own)
        return wall

    with tempfile.TemporaryDirectory() as home:
        os.environ["UNLEARN_HOME"] = home
        walls = alternate({n: lambda n=n: measured(n) for n in COMMANDS}, rounds)
        rows = []
        for name, words in COMMANDS.items():
            modules = imported(words)
            heavy = sorted({m.partition(".")[0] for m in modules} & set(HEAVY))
            middle = [statistics.median(times[name]) for times in (walls, cpu)]
            seconds = [f"{s:.2f}" for s in (middle[0], min(walls[name]), middle[1])]
            rows.append([name, *seconds, str(len(modules)), ", ".join(heavy) or "none"])
    columns = ("(c) command", "seconds", "fastest", "CPU seconds", "modules", "heavy packages")
    return Table("(c) start-up", columns, rows, "Target: 1.5 s.")
