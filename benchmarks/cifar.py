"""The whole CIFAR-10 plane of one method: the paper's grid, which the reference takes a week for.

``PLANE="dataset=digits seed=0"`` puts other options in the place of the data set.
"""

import os
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import Table, command

SPACE = ["sweep=task_space", "method=original,retrain,rem", "save_model=false", "stack=auto"]
LIMIT = 30  # minutes


def table(rounds: int) -> Table:
    """Run the plane once, whatever ``rounds`` is; downloading and decoding the images do not count."""
    options = os.environ.get("PLANE", "dataset=cifar10").split()
    with tempfile.TemporaryDirectory() as home:
        command(home, "train.py", *options, "pretraining.epochs=1", "seed=99")
        started = time.perf_counter()
        command(home, "unlearn.py", *SPACE, *options)
        minutes = (time.perf_counter() - started) / 60
        cells = len(list(Path(home).glob("results/*/row-0.json")))
    row = [" ".join(options), str(cells), f"{minutes:.1f}", f"{cells / minutes:.1f}"]
    columns = ("(e) whole plane", "cells", "minutes", "cells per minute")
    note = (
        f"`python unlearn.py {' '.join([*SPACE, *options])}`. Target on an H200: {LIMIT} minutes."
    )
    return Table(
        "(e) the whole plane, originals and retrained references included", columns, [row], note
    )
