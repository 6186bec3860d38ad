"""Memory, throughput and start with images that do not fit the memory of a process.

    python -m benchmarks.large_images make SOURCE ROOT 6000     # JPEGs of 224 px from class folders
    python -m benchmarks.large_images memory ROOT --store pixels --limit 4
    python -m benchmarks.large_images start ROOT --store pixels   # after memory, in the same --home
    python -m benchmarks.large_images loader ROOT --threads 2
    python -m benchmarks.large_images listing FOLDER 100000

Memory is that of the process alone (RssAnon): pages of the stores are shared by all processes and
can be dropped. ``--limit`` bounds it by RLIMIT_DATA, as ``prlimit --data`` does.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from benchmarks.bare_loop import BATCH, SIZE, make_network
from benchmarks.first_step import measure_listing, stop_at_first_step, time_command
from benchmarks.loaders import compare_loaders
from benchmarks.measuring import Table, machine

METHODS = {
    "finetune": ["method.epochs=1"],
    # A fixed stop instead of four passes that estimate it, and no repair: about one pass.
    "rem": [
        "method.epochs=1",
        "method.max_removal_epochs=1",
        "method.gamma=0.2",
        "method.repair=null",
    ],
    "badt": ["method.epochs=1"],
    "salun": ["method.epochs=1"],
    "ssd": [],
    "del": ["method.epochs=1"],
}
ALLOWED = 600
"""MB of a run beyond the network and one batch."""

REPOSITORY = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.01
IMPORTS = "import torch, lightning.pytorch, torchvision, hydra"


def small_network(in_channels: int, num_classes: int, width: int = 16) -> nn.Module:
    """Return the network of ``bare_loop``."""
    return stop_at_first_step(make_network(in_channels, num_classes, width))


def make_images(source: Path, root: Path, count: int) -> None:
    """Write ``count`` JPEGs of 224 px, five of six for training, from images in class folders."""
    from PIL import Image

    classes = sorted(p for p in (source / "train").iterdir() if p.is_dir())
    for part, share in (("train", count * 5 // 6), ("test", count - count * 5 // 6)):
        each = -(-share // len(classes))
        for folder in classes:
            (root / part / folder.name).mkdir(parents=True, exist_ok=True)
            paths = sorted((source / part / folder.name).iterdir())
            for number in range(each):
                path = paths[number % len(paths)]
                with Image.open(path) as image:
                    # Each image is another cut, so that no two files are equal.
                    shift = number // len(paths)
                    image = image.resize((SIZE + shift, SIZE + shift)).crop(
                        (shift, shift, SIZE + shift, SIZE + shift)
                    )
                    image.save(root / part / folder.name / f"{number:06}.jpg", quality=90)


def get_options(root: Path, store: str) -> list[str]:
    """Return the words of a command on these images."""
    return [
        "dataset=imagefolder", f"dataset.root={root}", f"dataset.image_size={SIZE}",
        f"dataset.store={store}", "model=import", "model.path=benchmarks.large_images:small_network",
        "pretraining.epochs=1", f"pretraining.batch_size={BATCH}", "trainer.accelerator=cpu",
        "logger=none", "corruption=poison", "save_model=false",
    ]  # fmt: skip


def watch_command(home: Path, words: list[str], limit: float | None) -> list[float]:
    """Run a command; return its peaks of RssAnon and VmData in MB.

    Raises:
        RuntimeError: With the end of its output, if it fails.
    """

    def bound() -> None:
        if limit is not None:
            most = int(limit * 2**30)
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    env = os.environ | {"UNLEARN_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    peaks = [0.0, 0.0]
    with (home / "said").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=REPOSITORY, env=env, stdout=said, stderr=said,
            preexec_fn=bound,
        )  # fmt: skip
        while process.poll() is None:
            now = (read_megabytes(process.pid, name) for name in ("RssAnon", "VmData"))
            peaks = [max(pair) for pair in zip(peaks, now, strict=True)]
            time.sleep(POLL_SECONDS)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: {text[-2000:]}")
    return peaks


def read_megabytes(pid: int, name: str) -> float:
    """Return a value of a process's status in MB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith(name)), 0)


def measure_memory(
    root: Path,
    home: Path,
    store: str,
    limit: float | None,
    counts: list[str],
    methods: Sequence[str] = tuple(METHODS),
) -> Table:
    """Return the peaks of private memory of a training and of each method with its evaluation.

    Peaks of earlier calls, kept in the home, are in the table as well.
    """
    home.mkdir(parents=True, exist_ok=True)
    options = [*get_options(root, store), *counts]
    train = [word for word in options if word != "save_model=false"]
    commands = {
        "bare loop, imports": ["-m", "benchmarks.bare_loop", "imports"],
        "bare loop": ["-m", "benchmarks.bare_loop", "loop"],
        "training": ["train.py", *train],
    }
    for name in methods:
        own = [f"method={name}", f"method.batch_size={BATCH}", *METHODS[name]]
        commands[name] = ["unlearn.py", *own, "force=true", *options]
    file = home / f"peaks-{store}.json"
    peaks = json.loads(file.read_text()) if file.exists() else {}
    for name, words in commands.items():
        if name in methods or name not in peaks:
            started = time.time()
            peaks[name] = [*watch_command(home, words, limit), time.time() - started]
            file.write_text(json.dumps(peaks))
    batch = peaks["bare loop"][0] - peaks["bare loop, imports"][0]
    most = ALLOWED + batch
    rows = [[name, *(f"{value:,.0f}" for value in values)] for name, values in peaks.items()]
    disk = sum(p.stat().st_blocks * 512 for p in home.glob(f"data_cache/*.{store}"))
    note = (
        f"Allowed: {ALLOWED} MB + network and one batch of the bare loop ({batch:,.0f}) = {most:,.0f} MB. "
        f"Store: {disk / 1e6:,.0f} MB on disk. {' '.join(counts)} RLIMIT_DATA {limit} GiB."
    )
    columns = ("command", "peak private MB (RssAnon)", "peak of VmData", "seconds")
    return Table(f"store={store}", columns, rows, note)


def measure_start(root: Path, home: Path, store: str, counts: list[str], rounds: int) -> Table:
    """Return the seconds before the first step of an unlearning whose original is cached."""
    words = ["unlearn.py", "method=finetune", "force=true", *get_options(root, store), *counts]
    sides = {"imports alone": ["-c", IMPORTS], "first step": words}
    rows = []
    for name, command in sides.items():
        found = [time_command(REPOSITORY, home, command) for _ in range(rounds)]
        wall, cpu = (min(values) for values in zip(*found, strict=True))
        rows.append([name, f"{wall:.2f}", f"{cpu:.2f}"])
    return Table(f"start, store={store}", ("until", "seconds", "CPU seconds"), rows)


def main() -> None:
    """Make images, or print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_images", description=__doc__)
    parser.add_argument("part", choices=("make", "memory", "start", "loader", "listing"))
    parser.add_argument("places", nargs="+", help="make: SOURCE ROOT COUNT; others: ROOT [COUNT]")
    parser.add_argument("--home", default="/tmp/large_images", help="folder of the outputs")
    parser.add_argument("--store", default="pixels")
    parser.add_argument("--limit", type=float, help="GiB of private memory")
    parser.add_argument("--options", nargs="*", default=[], help="further words of the commands")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    root, home = Path(asked.places[0]), Path(asked.home)
    if asked.part == "make":
        make_images(root, Path(asked.places[1]), int(asked.places[2]))
        return
    print(machine(), "\n")
    if asked.part == "memory":
        how = (asked.store, asked.limit, asked.options, asked.methods)
        print(measure_memory(root, home, *how).markdown())
    elif asked.part == "start":
        how = (asked.store, asked.options, asked.rounds)
        print(measure_start(root, home, *how).markdown())
    elif asked.part == "loader":
        print(compare_loaders(root, home, asked.threads, asked.rounds).markdown())
    else:
        print(measure_listing(root, int(asked.places[1])).markdown())


if __name__ == "__main__":
    main()
