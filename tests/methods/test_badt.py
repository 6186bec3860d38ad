"""Bad teaching: what is to be forgotten is taught by a network that knows nothing."""

import copy
import math

import pytest
import torch

from unlearn.methods.badt import BadT
from unlearn.methods.components.distillation import bad_teaching_loss, distillation_loss
from unlearn.models.inference import compute_accuracy, compute_logits

pytestmark = pytest.mark.numeric


def test_loss_by_a_naive_loop():
    generator = torch.Generator().manual_seed(0)
    student, competent, incompetent = torch.randn(3, 5, 4, generator=generator)
    found = torch.tensor([True, False, False, True, False])
    total = 0.0
    for i in range(5):
        q = (incompetent if found[i] else competent)[i].softmax(0).tolist()
        p = student[i].softmax(0).tolist()
        total += sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))
    args = student, competent, incompetent, found
    assert bad_teaching_loss(*args, "batch").item() == pytest.approx(total / 5, rel=1e-5)
    assert bad_teaching_loss(*args, "element").item() == pytest.approx(total / 20, rel=1e-5)


def test_each_set_has_its_own_teacher(resnet, task, recipe):
    request = task.request()
    method = BadT(kl_reduction="batch", seed=3, **recipe())
    method.prepare(resnet.eval(), request)
    for data, mine in ((request.retain, method.competent), (request.forget, method.incompetent)):
        batch = {"all": next(data.batches())}
        assert method.loss(mine, batch).item() == pytest.approx(0, abs=1e-6)
        other = method.competent if mine is method.incompetent else method.incompetent
        assert method.loss(other, batch).item() > 0.1
    joint = {"all": next(request.get_all_samples().batches())}
    assert method.uses(0) == ("all",)
    assert method.loss(method.competent, joint).item() > 0.01


def test_the_forget_set_is_forgotten_and_the_rest_kept(resnet, task, recipe, fit):
    request = task.request()
    plan = recipe(lr=0.1, epochs=20, momentum=0.0, weight_decay=0.0)
    method = BadT(kl_reduction="batch", seed=0, **plan)
    healed = method.unlearn(copy.deepcopy(resnet), request, fit)
    given = request.forget.label[:, None]
    before, after = (compute_logits(net, request.forget) for net in (resnet, healed))
    known, left = (z.softmax(1).gather(1, given).mean() for z in (before, after))
    assert known > 0.8 and left < 0.55  # the incompetent teacher gives each class a third
    assert compute_accuracy(healed, request.retain) > 0.9
    bad = compute_logits(method.incompetent, request.forget)
    assert distillation_loss(after, bad, 1.0) < 0.3 * distillation_loss(before, bad, 1.0)


def test_teachers_stay_what_they_are(resnet, task, recipe, fit):
    request, before = task.request(), copy.deepcopy(resnet.state_dict())
    method = BadT(kl_reduction="element", seed=0, **recipe())
    method.prepare(copy.deepcopy(resnet), request)
    bad = copy.deepcopy(method.incompetent.state_dict())
    method.unlearn(resnet, request, fit)
    for teacher, state in ((method.competent, before), (method.incompetent, bad)):
        assert all(torch.equal(v, teacher.state_dict()[k]) for k, v in state.items())
    assert compute_accuracy(method.incompetent, request.retain) < 0.7


def test_an_unknown_reduction_is_refused(recipe):
    with pytest.raises(ValueError, match=r"method.kl_reduction must be element or batch, got sum"):
        BadT(kl_reduction="sum", seed=0, **recipe())
