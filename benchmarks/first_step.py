"""Seconds from the start of a command to its first training step, and of what precedes it.

The network ends the process in its first forward pass of a training, if ``STOP`` is set.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.measuring import Table

STOP = "UNLEARN_BENCHMARK_STOP"


def stop_at_first_step(network: nn.Module) -> nn.Module:
    """Return the network, which ends its process at its first step if ``STOP`` names a file."""
    if STOP in os.environ:
        network.register_forward_pre_hook(_end_process)
    return network


def _end_process(module: nn.Module, inputs: Any) -> None:
    if module.training and torch.is_grad_enabled():
        Path(os.environ[STOP]).write_text(json.dumps([time.time(), time.process_time()]))
        os._exit(0)


def time_command(folder: Path, home: Path, words: Sequence[str]) -> tuple[float, float]:
    """Return wall and CPU seconds from the start of a command to its first step, or to its end."""
    file = home / "first_step.json"
    file.unlink(missing_ok=True)
    env = os.environ | {"UNLEARN_HOME": str(home), "PYTHONPATH": str(folder), STOP: str(file)}
    started = time.time()
    before = os.times()
    subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, check=True)
    after = os.times()
    if file.exists():
        at, cpu = json.loads(file.read_text())
        return at - started, cpu
    spent = after.children_user + after.children_system
    return time.time() - started, spent - before.children_user - before.children_system


def measure_listing(folder: Path, count: int) -> Table:
    """Return the seconds that listing and identity of ``count`` small files take."""
    classes = [f"class{number:03}" for number in range(100)]
    for number in range(count):
        path = folder / "train" / classes[number % 100] / f"{number:07}.jpg"
        if number < 100:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"%d" % number)
    code = (
        "import sys; from benchmarks.first_step import identify; identify(sys.argv[1], sys.argv[2])"
    )
    rows = []
    for start in ("first start", "second start", "third start"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder), str(folder.parent / "cache")],
            cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
        wall, cpu = json.loads(done.stdout)
        rows.append([start, f"{wall:.2f}", f"{cpu:.2f}"])
    return Table(f"{count:,} files", ("identity", "seconds", "CPU seconds"), rows)


def identify(folder: str, cache: str) -> None:
    """Print the seconds that a run's id and the key of a store take for a folder."""
    from unlearn.core.file_digests import hash_folder
    from unlearn.data.datasets.image_decoding import MAX_PIXELS, ImageDecoder
    from unlearn.data.datasets.image_files import ImageFiles
    from unlearn.data.datasets.image_folder import list_images

    root = Path(folder)
    started, spent = time.perf_counter(), time.process_time()
    hash_folder(root, Path(cache))
    names = list_images(root, root / "train", sorted(os.listdir(root / "train")))
    decoder = ImageDecoder(224, 3, MAX_PIXELS)
    ImageFiles(
        root, root / "train", tuple(names), decoder, Path(cache), "auto", "fail"
    ).compute_key()
    print(json.dumps([time.perf_counter() - started, time.process_time() - spent]))
