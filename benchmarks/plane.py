"""A small plane, cells per minute: with and without the cache, and with models trained stacked."""

import os
import tempfile
import time

from benchmarks.measuring import ON_GPU, Table, alternate, command, ratio, workers_cpu

SMALL = ["pretraining.epochs=5", "save_model=false"]
FULL = ["dataset=cifar10", "model.width=16", "pretraining.epochs=6", "save_model=false"]
SPACE = ["corruption=random_label,poison", "discovery=0.3,0.6,1.0", "seed=0,1"]
METHODS = "original,gradient_ascent,npo,rem" if ON_GPU else "original,npo"


def sweep(home: str, *options: str) -> None:
    """Run the plane in one process."""
    words = ["unlearn.py", "--multirun", f"method={METHODS}", *SPACE, *(FULL if ON_GPU else SMALL)]
    command(home, *words, *options)


def cells() -> int:
    """Return the number of cells of the plane."""
    count = 1
    for choice in (f"method={METHODS}", *SPACE):
        count *= len(choice.split(","))
    return count


def measured(*options: str) -> float:
    """Return the seconds of the plane from nothing."""
    with tempfile.TemporaryDirectory() as home:
        started, before = time.perf_counter(), workers_cpu()
        sweep(home, *options)
        alone = not ON_GPU and os.environ.get("OMP_NUM_THREADS") == "1"  # as measuring.clock
        return workers_cpu() - before if alone else time.perf_counter() - started


def uncached() -> float:
    """Return the seconds of the plane if every cell trains its own original model."""
    # One checkpoint folder per cell: what a script per cell does. The process is still one.
    own = "${names.method}_${names.corruption}_${discovery}_${seed}"
    return measured(f"paths.checkpoints=${{paths.root}}/{own}", "stack=off")


def table(rounds: int) -> Table:
    """Compare the ways."""
    sides = {
        "cache, stack=off": lambda: measured("stack=off"),
        "cache, stack=4": lambda: measured("stack=4"),
        "no cache": uncached,
    }
    found = alternate(sides, rounds, warm=False)
    first = found["cache, stack=off"]
    rows = []
    for name, times in found.items():
        middle = sorted(times)[len(times) // 2]
        rows.append([name, f"{60 * cells() / middle:.1f}", f"{ratio(first, times):.2f}"])
    columns = ("(e) plane", "cells per minute", "of stack=off")
    options = " ".join(FULL if ON_GPU else SMALL)
    note = f"{cells()} cells in one process, start and originals included: method={METHODS} "
    return Table("(e) a small plane", columns, rows, note + " ".join(SPACE) + f" {options}")
