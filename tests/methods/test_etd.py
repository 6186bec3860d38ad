"""Dropping what example-tied dropout memorised."""

import copy

import pytest
import torch

from unlearn.core.types import Request
from unlearn.methods.etd import ETD
from unlearn.methods.original import Original
from unlearn.models.expansion.expanded import Expanded, remove_extra_channels
from unlearn.models.inference import compute_logits
from unlearn.models.resnet9 import ResNet9
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant

pytestmark = pytest.mark.numeric


def unused(*_):
    raise AssertionError("a one-shot method trains nothing")


def pretrained(task, engine, *, density):
    plan = Pretraining(
        epochs=2, batch_size=32, optimizer=lambda p: torch.optim.SGD(p, lr=0.05),
        schedule=Constant(), capacity=0.5, density=density,
    )  # fmt: skip

    def factory(**shape):
        return ResNet9(**shape, width=4)

    net = plan.build_initial_network(factory, task.train, seed=0, mask_seed=0)
    pretrain(net, task.train, plan, engine, augment=None, seed=0)
    return net


def test_etd_is_drop_mode_and_needs_no_forget_set(task, engine):
    net = pretrained(task, engine, density=0.5)
    deployed = compute_logits(remove_extra_channels(net), task.train)
    torch.testing.assert_close(deployed, compute_logits(net, task.train), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(deployed, compute_logits(net, task.train, masked=True), atol=1e-3)
    request = task.request()
    other = Request(
        forget=request.retain.rows(torch.arange(7)), retain=request.retain.rows(torch.arange(7, 90))
    )
    for each in (request, other):
        healed = ETD().unlearn(copy.deepcopy(net), each, unused)
        assert isinstance(healed, ResNet9)
        assert healed.arguments["extra"] == 0
        assert torch.equal(compute_logits(healed, task.train), deployed)


def test_etd_returns_the_network_of_an_earlier_request_unchanged(task, engine):
    first = ETD().unlearn(pretrained(task, engine, density=0.5), task.request(), unused)
    again = copy.deepcopy(first)
    ETD().check_model(again, torch.zeros(1, 1, 12, 12))
    second = ETD().unlearn(again, task.request(), unused).state_dict()
    assert all(torch.equal(v, second[k]) for k, v in first.state_dict().items())


@pytest.mark.parametrize("kind", ["plain", "idle"])
def test_etd_refuses_a_network_that_was_trained_otherwise(kind, task, engine, network):
    net = network if kind == "plain" else pretrained(task, engine, density=0.0)
    assert isinstance(net, Expanded) == (kind == "idle")
    with pytest.raises(ValueError, match="choose pretraining=etd"):
        ETD().check_model(net, torch.zeros(1, 1, 12, 12))  # asked before anything is trained
    with pytest.raises(ValueError, match="choose pretraining=etd"):
        ETD().unlearn(net, task.request(), unused)
    assert isinstance(Original().unlearn(net, task.request(), unused), ResNet9)
