"""Peak memory of pre-training and of the bare loop, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.measuring import CROP, ON_GPU, Table, engine, fast_precision, images, network
from benchmarks.step import WIDTH, bare, sgd
from unlearn.core.environment import get_peak_bytes
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant

ROOT = Path(__file__).resolve().parent.parent
SIDES = ("nothing", "bare", "unlearn")
COUNT, BATCH = (50000, 512) if ON_GPU else (8192, 256)


def side(name: str) -> int:
    """Run one side here; return its peak in bytes."""
    data, net = images(COUNT, 3, 32), network(WIDTH)
    recipe = Pretraining(
        epochs=1, batch_size=BATCH, optimizer=sgd, capacity=1.0, density=0.0, schedule=Constant()
    )
    part = data.rows(torch.arange(min(COUNT, 8 * BATCH), device=data.label.device))
    if name == "bare":
        bare(net, part, recipe, CROP, fast_precision() == "bf16-mixed")
    if name == "unlearn":
        pretrain(net, part, recipe, engine("auto"), augment=CROP, seed=0)
    return get_peak_bytes()


def table(rounds: int) -> Table:
    """Return the peaks."""
    peaks = {}
    for name in SIDES:
        command = [sys.executable, "-m", "benchmarks.memory", name]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ)
        peaks[name] = int(done.stdout.split()[-1])
    said = {"nothing": "images and network alone", "bare": "bare loop", "unlearn": "unlearn"}
    rows = [[said[n], f"{p / 1e6:,.0f}"] for n, p in peaks.items()]
    what = "allocated on the GPU" if ON_GPU else "resident, libraries included"
    note = f"{COUNT} images of 32 px in memory, batch {BATCH}; {what}."
    return Table("(f) peak memory", ("(f) pre-training", "MB"), rows, note)


if __name__ == "__main__":
    print(side(sys.argv[1]))
