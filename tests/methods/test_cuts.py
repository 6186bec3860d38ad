"""CUTS: a step away from what learning the corruption once more changes."""

import copy

import pytest
import torch
from torch import nn

from unlearn.methods.components.neighbour_score import LOWEST, compute_neighbour_score
from unlearn.methods.cuts import CUTS, name_batch_norm_tensors
from unlearn.models.inference import compute_accuracy, compute_logits

pytestmark = pytest.mark.numeric

OPTIONS = {"factor": "forget", "gamma": 0.2, "recalibrate": False, "samples": 60, "seed": 0}


def changed(method, model):
    skip = name_batch_norm_tensors(model)
    return {
        n: v - method.original[n]
        for n, v in model.state_dict().items()
        if v.is_floating_point() and n not in skip
    }


def test_factor_zero_is_the_original_and_batch_norm_never_moves(resnet, task, recipe, fit):
    before = copy.deepcopy(resnet.state_dict())
    method = CUTS(**OPTIONS, **recipe(lr=0.01, epochs=3))
    model = method.prepare(resnet, task.request())
    fit(method, model, task.request())
    skip = name_batch_norm_tensors(model)
    assert any("running_mean" in n for n in skip) and any(n.endswith("weight") for n in skip)
    assert any(not torch.equal(model.state_dict()[n], before[n]) for n in skip)  # while training
    change = changed(method, model)
    for factor in (0.0, 0.35, 4.0):
        method.subtract_change(model, change, factor)
        state = model.state_dict()
        assert all(torch.equal(state[n], before[n]) for n in skip)
        for name, value in change.items():
            torch.testing.assert_close(state[name], before[name] - factor * value)
        assert factor or all(torch.equal(state[n], before[n]) for n in before)


def test_no_learning_is_no_change(resnet, task, recipe, fit):
    before = copy.deepcopy(resnet.state_dict())
    plan = recipe() | {"optimizer": lambda p: torch.optim.SGD(p, lr=0.0)}
    method = CUTS(**OPTIONS, **plan)
    healed = method.unlearn(resnet, task.request(), fit)
    assert all(torch.equal(v, before[k]) for k, v in healed.state_dict().items())
    assert method.notes["factor"] == 0 and not method.notes["converged"]


def test_the_smallest_factor_that_forgets_is_taken(resnet, task, recipe, fit):
    forget = task.request().forget
    plan = recipe(epochs=30) | {"optimizer": lambda p: torch.optim.AdamW(p, lr=0.001)}
    method = CUTS(**OPTIONS, **plan)
    healed = method.unlearn(resnet, task.request(), fit)
    factor = method.notes["factor"]
    assert factor > 0 and round(compute_accuracy(healed, forget), 2) <= 0.2
    state = healed.state_dict()
    change = {
        n: (method.original[n] - v) / factor for n, v in state.items() if v.is_floating_point()
    }
    method.subtract_change(healed, change, factor - 0.05)
    assert round(compute_accuracy(healed, forget), 2) > 0.2


def test_in_a_linear_model_the_given_labels_lose_with_every_factor(task, recipe, fit):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    method = CUTS(**OPTIONS, **recipe(lr=0.01, epochs=5, weight_decay=0.0))
    model = method.prepare(model, task.request())
    fit(method, model, task.request())
    change, forget = changed(method, model), task.request().forget
    means = []
    for factor in (0.0, 0.5, 1.0, 2.0):
        method.subtract_change(model, change, factor)
        logits = compute_logits(model, forget)
        means.append(logits.gather(1, forget.label[:, None]).mean().item())
    assert means == sorted(means, reverse=True) and len(set(means)) == 4


def test_neighbours_that_agree_score_higher():
    generator = torch.Generator().manual_seed(0)
    centre = torch.eye(3).repeat_interleave(20, 0)
    features = centre + 0.05 * torch.randn(60, 3, generator=generator)
    good = compute_neighbour_score(features, (8 * centre).softmax(1))
    mixed = compute_neighbour_score(
        features, (8 * centre[torch.randperm(60, generator=generator)]).softmax(1)
    )
    lost = compute_neighbour_score(features, torch.eye(3)[[0]].expand(60, 3))
    assert good > mixed + 0.5 and lost == LOWEST
    assert good == pytest.approx(1.0, abs=1e-3)


def test_the_other_rule_needs_no_labels(resnet, task, recipe, fit):
    method = CUTS(**(OPTIONS | {"factor": "neighbours"}), **recipe(lr=0.01, epochs=3))
    healed = method.unlearn(resnet, task.request(), fit)
    assert 0 <= method.notes["factor"] <= 4
    assert compute_accuracy(healed, task.test) > 0.5
