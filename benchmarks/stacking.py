"""Models trained stacked against one by one: the same models, with the optimizer's steps.

The comparison that ``stack=auto`` rests on: on a CPU it chooses one by one.
"""

from benchmarks.measuring import (
    CROP,
    ON_GPU,
    Table,
    alternate,
    engine,
    images,
    network,
    ratio,
    timed,
)  # fmt: skip
from benchmarks.step import sgd
from unlearn.data.datasets.augmentation import Augment
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant
from unlearn.training.stacked.pretraining import StackMember, pretrain_stacked

STILL = Augment(crop_padding=0, flip_rate=0, cutout=0)
CASES = [
    # name, models, images, channels, size, width, batch
    ("digits recipe, width 8, 12 px", 4, 384, 1, 12, 8, 64),
    ("digits recipe, width 8, 12 px", 10, 384, 1, 12, 8, 64),
    ("width 16, 32 px", 4, 256, 3, 32, 16, 64),
]
GPU_CASES = [
    ("digits recipe, width 8, 12 px", 10, 1297, 1, 12, 8, 64),
    ("width 16, 32 px", 10, 16384, 3, 32, 16, 128),
    ("width 16, 32 px", 30, 16384, 3, 32, 16, 128),
    ("width 64, 32 px", 10, 16384, 3, 32, 64, 512),
]


def table(rounds: int) -> Table:
    """Compare the two."""
    rows = [row(*case, rounds) for case in (GPU_CASES if ON_GPU else CASES)]
    columns = ("(e) ResNet-9", "models", "precision", "one by one, s", "stacked, s", "faster")
    note = (
        "Different seeds and sizes of data that differ by one batch; one epoch. Target on a GPU: 4."
    )
    return Table("(e) models trained stacked", columns, rows, note)


def row(
    name: str, models: int, count: int, channels: int, size: int, width: int, batch: int,
    rounds: int,
) -> list[str]:  # fmt: skip
    """Return one row: seconds of both ways and how much faster the stack is."""
    data = images(count, channels, size)
    parts = [data.rows(data.index[: count - (k % 2) * batch]) for k in range(models)]
    how, augment = engine("auto", size), STILL if size < 32 else CROP
    recipe = Pretraining(
        epochs=1, batch_size=batch, optimizer=sgd, capacity=1.0, density=0.0, schedule=Constant()
    )

    def nets() -> list:
        return [network(width, channels, size, seed=k) for k in range(models)]

    def alone() -> float:
        made = nets()
        return timed(
            lambda: [
                pretrain(net, part, recipe, how, augment=augment, seed=k)
                for k, (net, part) in enumerate(zip(made, parts, strict=True))
            ]
        )

    def together() -> float:
        made = [StackMember(n, p, k) for k, (n, p) in enumerate(zip(nets(), parts, strict=True))]
        return timed(lambda: list(pretrain_stacked(made, recipe, how, augment=augment)))

    found = alternate({"alone": alone, "stacked": together}, rounds, warm=ON_GPU)
    middle = [f"{sorted(times)[rounds // 2]:.2f}" for times in found.values()]
    faster = f"{ratio(found['alone'], found['stacked']):.2f}"
    return [name, str(models), how.resolved_precision(), *middle, faster]
