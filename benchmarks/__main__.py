"""Images per second of our pre-training against a bare PyTorch loop, as ratios from one run.

Same in-memory images, network, precision, batch size and optimizer; the loop has no trainer, no
logger and no checks. Both sides take turns; the middle of the ratios counts.

    python -m benchmarks
"""

import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core import ImageSet
from unlearn.data.augment import Augment
from unlearn.data.view import Normalize
from unlearn.models.resnet9 import ResNet9
from unlearn.training.engine import Engine
from unlearn.training.pretrain import Pretraining, pretrain
from unlearn.training.schedules import WarmupLinear

ROUNDS = 5
CASES = [
    # name, images, channels, size, width, batch, epochs, precision
    ("digits recipe", 1297, 1, 12, 8, 64, 6, "32-true"),
    ("ResNet-9 width 16, 32 px", 4096, 3, 32, 16, 256, 1, "32-true"),
    ("ResNet-9 width 16, 32 px", 4096, 3, 32, 16, 256, 2, "bf16-mixed"),
]


def images(count: int, channels: int, size: int) -> ImageSet:
    """Return random images: their content does not matter here."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (count, channels, size, size), generator=generator)
    label = torch.randint(0, 10, (count,), generator=generator)
    view = Normalize((0.5,) * channels, (0.25,) * channels)
    return ImageSet(image.to(torch.uint8), label, torch.arange(count), 10, view)


def sgd(parameters: object) -> torch.optim.Optimizer:
    """Return the benchmark's optimizer."""
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=5e-4)  # type: ignore[arg-type]


def bare(
    model: nn.Module, data: ImageSet, recipe: Pretraining, augment: Augment, fast: bool
) -> None:
    """Train as one would by hand."""
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = recipe.optimizer(model.parameters())
    steps = recipe.epochs * -(-len(data) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.schedule(step, steps)
    )
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.tensor(0.5), torch.tensor(0.25)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(data), generator=generator).split(recipe.batch_size):
            if len(rows) < 2:
                continue
            image: Tensor = augment(data.image[rows], generator).float().div(255).sub(mean).div(std)
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                loss = F.cross_entropy(model(image), data.label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(case: tuple[str, int, int, int, int, int, int, str]) -> list[str]:
    """Return one row: name, precision, both speeds and their ratio."""
    name, count, channels, size, width, batch, epochs, precision = case
    torch.set_num_threads(1 if size < 32 else os.cpu_count() or 1)  # as the digits recipe
    data = images(count, channels, size)
    augment = Augment(
        crop_padding=4 if size == 32 else 0, flip_rate=0.5 if size == 32 else 0, cutout=0
    )
    recipe = Pretraining(
        epochs=epochs, batch_size=batch, optimizer=sgd, capacity=1.0, density=0.0,
        schedule=WarmupLinear(warmup_fraction=0.1, stretch=1.0),
    )  # fmt: skip
    engine = Engine(
        accelerator="cpu", devices=1, precision=precision, unlearning_precision=precision,
        channels_last=True, compile=False, progress=False, checkpoint_seconds=1e9, image_size=size,
    )  # fmt: skip

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return ResNet9(in_channels=channels, image_size=size, num_classes=10, width=width)

    def ours() -> float:
        net = fresh()
        return timed(lambda: pretrain(net, data, recipe, engine, augment=augment, seed=0))

    def theirs() -> float:
        net = fresh()
        return timed(lambda: bare(net, data, recipe, augment, precision == "bf16-mixed"))

    for warm_up in (ours, theirs):
        warm_up()
    pairs = [(ours(), theirs()) for _ in range(ROUNDS)]
    seen = epochs * count
    ratio = statistics.median(b / a for a, b in pairs)
    speeds = [statistics.median(seen / s for s in side) for side in zip(*pairs, strict=True)]
    return [name, precision, *(f"{s:,.0f}" for s in speeds), f"{ratio:.2f}"]


def main() -> None:
    """Print the table."""
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {threads}"
    table = Table(title=f"pre-training, images per second ({machine})", title_justify="left")
    for column in ("case", "precision", "unlearn", "bare loop", "ratio"):
        table.add_column(column, justify="left" if column in ("case", "precision") else "right")
    for case in CASES:
        table.add_row(*compare(case))
    Console().print(table)


if __name__ == "__main__":
    main()
