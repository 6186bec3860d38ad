"""NegGrad+ descends on the retain set while it ascends on the forget set."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from unlearn.methods.finetune import Finetune
from unlearn.methods.neggrad_plus import NegGradPlus, neggrad_plus_loss
from unlearn.models.inference import compute_accuracy
from unlearn.training.unlearning import LightningFit

pytestmark = pytest.mark.numeric

OPTIONS = {
    "beta": 0.85, "gamma": 0.2, "stop": True, "forget_batch_size": None, "batch_norm": "joint",
}  # fmt: skip


def test_loss_by_hand():
    retain, forget = torch.tensor(2.0, requires_grad=True), torch.tensor(4.0, requires_grad=True)
    loss = neggrad_plus_loss(retain, forget, 0.75)
    assert loss.item() == pytest.approx(0.5)
    loss.backward()
    assert (retain.grad, forget.grad) == (0.75, -0.25)


def test_all_weight_on_the_retain_set_is_fine_tuning(vit, task, recipe):
    request, slopes = task.request(), []
    both = {"retain": next(request.retain.batches(40)), "forget": next(request.forget.batches())}
    options = OPTIONS | {"beta": 1.0, "batch_norm": "separate"}
    for method in (Finetune(**recipe()), NegGradPlus(**options, **recipe())):
        own = method.prepare(copy.deepcopy(vit), request)
        method.loss(own, {name: both[name] for name in method.uses(0)}).backward()
        slopes.append([p.grad for p in own.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))


@pytest.mark.parametrize("batch_norm", ["joint", "separate"])
def test_both_batches_enter_with_their_signs(batch_norm, resnet, task, recipe):
    request = task.request()
    batch = {"retain": next(request.retain.batches(40)), "forget": next(request.forget.batches())}
    calls = []

    def forward(image):
        calls.append(len(image))
        return resnet(image)

    method = NegGradPlus(**(OPTIONS | {"batch_norm": batch_norm}), **recipe())
    method.prepare(resnet.eval(), request)
    with torch.no_grad():
        loss = method.loss(forward, batch).item()
        parts = [F.cross_entropy(resnet(b.image), b.label).item() for b in batch.values()]
    assert calls == ([50] if batch_norm == "joint" else [40, 10])
    assert loss == pytest.approx(0.85 * parts[0] - 0.15 * parts[1], abs=1e-5)


def test_it_forgets_keeps_the_rest_and_stops(resnet, task, recipe, fit):
    request, twin = task.request(), copy.deepcopy(resnet)
    plan = recipe(lr=0.05, epochs=15, momentum=0.0, weight_decay=0.0)
    healed = NegGradPlus(**OPTIONS, **plan).unlearn(resnet, request, fit)
    assert compute_accuracy(healed, request.forget) <= 0.2
    assert compute_accuracy(healed, request.retain) > 0.85
    plain = NegGradPlus(**(OPTIONS | {"beta": 1.0}), **plan).unlearn(twin, request, fit)
    assert compute_accuracy(plain, request.forget) > 0.8  # without ascent


def test_a_single_forget_sample_shares_a_forward_pass(resnet, task, recipe, caplog):
    request = task.request()
    one = replace(request, forget=request.forget.rows(torch.tensor([0])))
    method = NegGradPlus(**(OPTIONS | {"batch_norm": "separate"}), **recipe())
    method.prepare(resnet, one)
    assert method.joint
    assert "forget batches hold one sample" in caplog.text


def test_stop_is_an_option(resnet, task, recipe, engine):
    seen = {}
    for stop in (True, False):
        fit = LightningFit(engine, augment=None, seed=0)
        method = NegGradPlus(**(OPTIONS | {"stop": stop, "gamma": 0.999}), **recipe(epochs=30))
        method.unlearn(copy.deepcopy(resnet), task.request(), fit)
        seen[stop] = fit.images_seen
    assert seen[False] == 30 * (190 + 6 * 10)
    assert seen[True] < seen[False]


def test_what_is_forgotten_already_is_returned_as_it_is(resnet, task, recipe, fit):
    before = copy.deepcopy(resnet.state_dict())
    method = NegGradPlus(**(OPTIONS | {"gamma": 1.0}), **recipe())
    after = method.unlearn(resnet, task.request(), fit).state_dict()
    assert method.notes["already_forgotten"]
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(
    ("option", "value"), [("beta", 1.5), ("beta", 0.0), ("gamma", 2), ("batch_norm", "both")]
)
def test_options_out_of_range_are_refused_by_name(option, value, recipe):
    with pytest.raises(ValueError, match=rf"method.{option} must be .*, got {value}"):
        NegGradPlus(**(OPTIONS | {option: value}), **recipe())
