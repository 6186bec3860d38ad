"""What watching costs: pre-training with a recorder of memorization scores against the same without.

Learning events (four proxies at once: one gather and one scatter per batch) are to cost less than 5 %;
the curvature of the loss takes three more forward and two more backward passes.
"""

from collections.abc import Callable, Sequence

from benchmarks.measuring import Table, alternate, engine, fast_precision, images, network, ratio
from benchmarks.measuring import timed as seconds_of
from benchmarks.step import CASES, sgd
from unlearn.scoring.base import Recorder
from unlearn.scoring.memorization.learning_events import LearningEvents
from unlearn.scoring.memorization.loss_curvature import CurvatureRecorder
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import WarmupLinear

RECORDERS: dict[str, Callable[[], list[Recorder]]] = {
    "none": list,
    "learning events": lambda: [LearningEvents(mode="online")],
    "loss curvature": lambda: [CurvatureRecorder(h=0.01, every=1)],
}


def table(rounds: int) -> Table:
    """Compare the recorders with none."""
    columns = (
        "pre-training",
        "precision",
        *(f"{name}, s" for name in RECORDERS),
        "events",
        "curvature",
    )
    note = "Ratios of the time to that without a recorder. Target for learning events: 1.05."
    rows = [compare(case, rounds) for case in CASES]
    return Table("(h) recorders of memorization scores", columns, rows, note)


def compare(case: tuple[str, int, int, int, int, int, int, str], rounds: int) -> Sequence[str]:
    """Return one row: name, precision, seconds with each recorder, and both ratios."""
    name, count, channels, size, width, batch, epochs, precision = case
    precision = fast_precision() if precision == "fast" else precision
    data, machine = images(count, channels, size), engine(precision, size)
    recipe = Pretraining(
        epochs=epochs, batch_size=batch, optimizer=sgd, capacity=1.0, density=0.0,
        schedule=WarmupLinear(warmup_fraction=0.1, stretch=1.0),
    )  # fmt: skip

    def side(make: Callable[[], list[Recorder]]) -> Callable[[], float]:
        def run() -> float:
            net, watchers = network(width, channels, size), make()
            return seconds_of(
                lambda: pretrain(
                    net, data, recipe, machine, augment=None, seed=0, recorders=watchers
                )
            )

        return run

    found = alternate({who: side(make) for who, make in RECORDERS.items()}, rounds)
    means = [f"{sorted(values)[len(values) // 2]:.2f}" for values in found.values()]
    ratios = [f"{ratio(found[who], found['none']):.3f}" for who in list(RECORDERS)[1:]]
    return (name, precision, *means, *ratios)
