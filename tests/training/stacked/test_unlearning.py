import contextlib
import copy

import pytest
import torch
from torch.nn import functional as F

from unlearn.methods.base import UnlearningMethod
from unlearn.training.schedules import WarmupLinear
from unlearn.training.stacked.unlearning import StackedRun, StackedUnlearner, find_stack_obstacle
from unlearn.training.unlearning import LightningFit


class Plain(UnlearningMethod):
    stackable = True

    def loss(self, forward, batch):
        part = batch["retain"]
        return F.cross_entropy(forward(part.image), part.label)


class Drawing(Plain):
    def loss(self, forward, batch):
        return super().loss(forward, batch) * torch.rand(())


class Own(Plain):
    def unlearn(self, model, request, fit):
        return model


class Still(Plain):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        pl_module.model.fc.weight.grad.zero_()  # pyright: ignore


class Watching(Plain):
    def on_after_backward(self, trainer, pl_module):
        raise AssertionError


def method(kind=Plain, lr=0.02, epochs=2):
    return kind(
        epochs=epochs,
        batch_size=64,
        optimizer=lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9),
        schedule=WarmupLinear(warmup_fraction=0.2, stretch=0.8),
    )


@pytest.fixture
def course(network, task, engine):
    def make(seed=0, start=network, **how):
        fit = LightningFit(engine, augment=None, seed=seed)
        return StackedRun(method(**how), copy.deepcopy(start), task.request(), fit)

    return make


def run(*courses):
    StackedUnlearner(courses, contextlib.nullcontext).run_all()


def alike(one, two):
    for key, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], value, rtol=1e-3, atol=1e-3, msg=key)


def test_each_has_its_own_rate_order_and_end(course, network, task, engine):
    plans = [{"seed": 0, "epochs": 1}, {"seed": 1, "lr": 0.05}, {"seed": 2, "epochs": 3}]
    courses = [course(**plan) for plan in plans]
    run(*courses)
    for plan, made in zip(plans, courses, strict=True):
        own = method(**{k: v for k, v in plan.items() if k != "seed"})
        fit = LightningFit(engine, augment=None, seed=plan["seed"])
        alone = own.unlearn(copy.deepcopy(network), task.request(), fit)
        alike(alone, made.finish_run())
        assert made.images_seen == fit.images_seen
        assert made.seconds > 0


def test_one_that_breaks_or_loses_its_loss_harms_no_other(course, network):
    expected = course(seed=0)
    run(expected)
    lost = copy.deepcopy(network)
    torch.nn.init.constant_(lost.fc.weight, float("nan"))
    broken = course(seed=2)
    broken.callbacks[0].set_epoch = None
    broken.callbacks[0].on_train_epoch_start = None  # its second epoch cannot begin
    made = [course(seed=0), course(seed=1, start=lost), broken]
    run(*made)
    assert [m.error is None for m in made] == [True, False, False]
    assert "loss is nan" in str(made[1].error)
    alike(expected.finish_run(), made[0].finish_run())
    assert made[1].finish_run() is None


def test_a_loss_that_draws_cannot_be_stacked_and_says_so(course):
    with pytest.raises(RuntimeError, match="random"):
        run(course(kind=Drawing), course(kind=Drawing))


def test_a_hook_may_change_the_gradient_before_the_step(course, network):
    made = [course(kind=Still, seed=k) for k in (0, 1)]
    run(*made)
    for one in made:
        healed = one.finish_run()
        assert torch.equal(healed.fc.weight, network.fc.weight)
        assert not torch.equal(healed.conv1[0].weight, network.conv1[0].weight)


def test_what_is_unfit_for_a_stack_says_why(course):
    assert find_stack_obstacle(method()) is None
    assert "overrides unlearn()" in (find_stack_obstacle(method(Own)) or "")
    assert "on_after_backward" in (find_stack_obstacle(method(Watching)) or "")
    Plain.stackable = False
    try:
        assert "is not stackable" in (find_stack_obstacle(method()) or "")
    finally:
        Plain.stackable = True


def test_masks_are_stacked_once_and_running_statistics_each_time(course):
    pair = [course(seed=k) for k in (0, 1)]
    stack = StackedUnlearner(pair, contextlib.nullcontext)
    pair[0].still = {"module.model.fc.weight"}  # as if nobody moved it
    first, second = stack._stack_tensors(pair), stack._stack_tensors(pair)
    same = {name for name in first if first[name] is second[name]}
    assert same == {"module.model.fc.weight"}
    with torch.no_grad():
        pair[1].tensors["module.model.fc.weight"].add_(1)
    third = stack._stack_tensors(pair)["module.model.fc.weight"]
    assert torch.equal(third[1], pair[1].tensors["module.model.fc.weight"])
