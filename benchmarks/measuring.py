"""What all parts share: taking turns, the table, the machine, random images, a network."""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import nn

from unlearn.core.types import ImageSet
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.normalization import Normalize
from unlearn.models.resnet9 import ResNet9
from unlearn.training.engine import Engine

ROOT = Path(__file__).resolve().parent.parent
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"
MEAN, STD = 0.5, 0.25
CROP = Augment(crop_padding=4, flip_rate=0.5, cutout=0)


@dataclass(frozen=True)
class Table:
    """A table and what it says in one line; the first column is text, the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = ["| " + " | ".join(row) + " |" for row in (self.columns, *self.rows)]
        lines.insert(1, "| --- |" + " --: |" * (len(self.columns) - 1))
        note = f"\n{self.note}\n" if self.note else ""
        return f"### {self.title}\n\n" + "\n".join(lines) + "\n" + note


def machine() -> str:
    """Return what the numbers depend on, in one line."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    name = names[0] if names else platform.processor() or platform.machine()
    amx = ", AMX" if "amx_bf16" in text else ""
    gpu = f", {torch.cuda.get_device_name()}" if ON_GPU else ", no GPU"
    return (
        f"{name}, {os.cpu_count()} cores{amx}, {torch.get_num_threads()} threads{gpu}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, lightning {version('lightning')}; "
        f"load average {os.getloadavg()[0]:.1f}"
    )


def clock() -> float:
    """Return the time that comparisons count, in seconds.

    On one CPU thread that is the process's own CPU time: other work on the machine does not show.
    """
    alone = not ON_GPU and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def workers_cpu() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def wait() -> None:
    """Let the GPU finish."""
    if ON_GPU:
        torch.cuda.synchronize()


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    wait()
    started = clock()
    call()
    wait()
    return clock() - started


def alternate(
    sides: Mapping[str, Callable[[], float]], rounds: int, *, warm: bool = True
) -> dict[str, list[float]]:
    """Return what each side measures, round by round; sides take turns, first and last in turn.

    Other work on the machine then meets all of them alike.
    """
    if warm:
        for side in sides.values():
            side()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in reversed(list(sides)) if number % 2 else list(sides):
            found[name].append(sides[name]())
    return found


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Return the median over rounds of ``of`` / ``to``."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def images(count: int, channels: int, size: int, seed: int = 0) -> ImageSet:
    """Return random images: their content does not matter here."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, channels, size, size), generator=generator)
    label = torch.randint(0, 10, (count,), generator=generator)
    view = Normalize((MEAN,) * channels, (STD,) * channels)
    data = ImageSet(image.to(torch.uint8), label, torch.arange(count), 10, view)
    return data.to(DEVICE)


def network(width: int, channels: int = 3, size: int = 32, seed: int = 0) -> nn.Module:
    """Return a fresh ResNet-9."""
    torch.manual_seed(seed)
    return ResNet9(in_channels=channels, image_size=size, num_classes=10, width=width)


def engine(precision: str, size: int = 32, *, full: str = "32-true") -> Engine:
    """Return the product's engine without progress bars and checkpoints."""
    return Engine(
        accelerator="auto", devices=1, precision=precision, unlearning_precision=full,
        channels_last=True, compile=False, progress=False, checkpoint_seconds=1e9, image_size=size,
    )  # fmt: skip


def fast_precision() -> str:
    """Return the precision that the product chooses for pre-training at 32 pixels."""
    return str(engine("auto").resolved_precision())


def command(home: str, *words: str) -> None:
    """Run a command of the project with its outputs under ``home``.

    Raises:
        RuntimeError: With the end of what it said, if it fails.
    """
    env = os.environ | {"UNLEARN_HOME": home}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


def moment() -> Any:
    """Return the time: on a GPU the event of getting there."""
    if not ON_GPU:
        return clock()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class Stopwatch(L.Callback):
    """Counts the seconds from the start of each epoch to the end of its last step.

    What methods and monitors do after an epoch does not count. A GPU notes the times itself: no
    step waits for it.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        self.seconds = 0.0
        self.begun = self.last = moment()

    def on_train_epoch_start(self, *_: object) -> None:  # type: ignore[override]
        """Start."""
        wait()
        self.begun = self.last = moment()

    def on_train_batch_end(self, *_: object) -> None:  # type: ignore[override]
        """Note the time of the step's end."""
        self.last = moment()

    def on_train_epoch_end(self, *_: object) -> None:  # type: ignore[override]
        """Count the epoch."""
        wait()
        if ON_GPU:
            self.seconds += self.begun.elapsed_time(self.last) / 1000
        else:
            self.seconds += self.last - self.begun
