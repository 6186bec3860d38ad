"""What watching costs: pre-training with a recorder of memorization scores against the same without.

Both take turns; the middle of the ratios counts. Learning events are to cost less than 5 % (one gather
and one scatter per batch); the curvature of the loss takes two more passes and is shown beside them.

    python -m benchmarks.recording
"""

import os
import statistics
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import CASES, images, sgd, timed
from unlearn.memorization.base import Recorder
from unlearn.memorization.events import LearningEvents
from unlearn.memorization.loss_curvature import Curvature
from unlearn.models.resnet9 import ResNet9
from unlearn.training.engine import Engine
from unlearn.training.pretrain import Pretraining, pretrain
from unlearn.training.schedules import WarmupLinear

ROUNDS = 7
RECORDERS: dict[str, Callable[[], Recorder]] = {
    "learning events": lambda: LearningEvents(mode="online"),
    "loss curvature": lambda: Curvature(h=0.01, every=1),
}


def cost(case: tuple, recorder: Callable[[], Recorder], rounds: int) -> tuple[float, float]:
    """Return the middle of the ratios of time with and without, and of the recorder's own account."""
    _, count, channels, size, width, batch, epochs, precision = case
    torch.set_num_threads(1 if size < 32 else os.cpu_count() or 1)  # as the digits recipe
    data = images(count, channels, size)
    recipe = Pretraining(
        epochs=epochs, batch_size=batch, optimizer=sgd, capacity=1.0, density=0.0,
        schedule=WarmupLinear(warmup_fraction=0.1, stretch=1.0),
    )  # fmt: skip
    engine = Engine(
        accelerator="cpu", devices=1, precision=precision, unlearning_precision=precision,
        channels_last=True, compile=False, progress=False, checkpoint_seconds=1e9, image_size=size,
    )  # fmt: skip

    def seconds(watchers: list[Recorder]) -> float:
        torch.manual_seed(0)
        net = ResNet9(in_channels=channels, image_size=size, num_classes=10, width=width)
        plan = {"augment": None, "seed": 0, "recorders": watchers}
        return timed(lambda: pretrain(net, data, recipe, engine, **plan))

    seconds([])
    ratios, shares = [], []
    for _ in range(rounds):
        watcher = recorder()
        bare, watched = seconds([]), seconds([watcher])
        ratios.append(watched / bare)
        shares.append(watcher.seconds / watched)
    return statistics.median(ratios), statistics.median(shares)


def main() -> None:
    """Print the table."""
    table = Table(title="pre-training with a recorder against without", title_justify="left")
    for column in ("case", "precision", "recorder", "time ratio", "own share"):
        table.add_column(
            column, justify="right" if column in ("time ratio", "own share") else "left"
        )
    for case in CASES:
        for name, recorder in RECORDERS.items():
            ratio, share = cost(case, recorder, ROUNDS)
            table.add_row(case[0], case[-1], name, f"{ratio:.3f}", f"{100 * share:.1f} %")
    Console().print(table)


if __name__ == "__main__":
    main()
