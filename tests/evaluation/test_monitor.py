import torch

from unlearn.evaluation.monitor import STEPS, Monitor
from unlearn.methods.gradient_ascent import GradientAscent
from unlearn.methods.scrub import Scrub
from unlearn.training.schedules import Constant
from unlearn.training.unlearning import LightningFit


class Heard:
    def __init__(self):
        self.values = {}

    def log_metrics(self, values, step):
        self.values[step] = values

    def save(self):
        pass


def recipe(epochs, batch_size):
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": lambda p: torch.optim.SGD(p, lr=1e-4),
        "schedule": Constant(),
    }


def looks(method, network, task, engine):
    heard = Heard()
    fit = LightningFit(engine, augment=None, seed=0, callbacks=[Monitor(method, task, [heard])])
    fit(method, method.prepare(network, task.request()), task.request())
    assert all("model/healed" in values for values in heard.values.values())
    return sorted(heard.values)


def ascent(epochs, batch_size):
    options = {"gamma": 0.0, "select": "last", "select_samples": None, "batch_norm": "train"}
    return GradientAscent(**recipe(epochs, batch_size), **options)


def test_short_epochs_are_looked_at_now_and_then_and_the_last_always(network, task, engine):
    assert STEPS == 4
    assert looks(ascent(10, 64), network, task, engine) == [0, 4, 8, 10]  # 10 forget samples


def test_epochs_of_enough_steps_are_all_looked_at(network, task, engine):
    assert looks(ascent(3, 2), network, task, engine) == [0, 1, 2, 3]


def test_an_end_before_its_time_is_looked_at(network, task, engine):
    method = ascent(10, 64)
    method.stop.accuracy = 1.0  # forgotten after the first epoch
    assert looks(method, network, task, engine) == [0, 1]


def test_a_turn_of_the_phase_is_looked_at(network, task, engine):
    method = Scrub(
        form="original", alpha=1.0, ce_weight=1.0, temperature=1.0, msteps=0, max_passes=2,
        forget_batch_size=64, batch_norm="eval", **recipe(3, 100),
    )  # fmt: skip
    # Passes of 1, 2, 1, 2 and 2 steps: climb, descend, climb, descend, descend.
    assert looks(method, network, task, engine) == [0, 1, 2, 3, 5]
