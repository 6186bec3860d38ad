"""SCRUB climbs on the forget set, then descends on the retain set."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from unlearn.methods.components.distillation import distillation_loss
from unlearn.methods.finetune import Finetune
from unlearn.methods.scrub import Scrub
from unlearn.models.inference import compute_accuracy

pytestmark = pytest.mark.numeric

OPTIONS = {
    "form": "benchmark", "alpha": 0.01, "ce_weight": 1.0, "temperature": 4.0, "msteps": 15,
    "max_passes": 3, "forget_batch_size": None, "batch_norm": "eval",
}  # fmt: skip


class Watched(Scrub):
    """Notes what every step used."""

    steps: list[str]

    def prepare(self, model, request):
        self.steps = []
        return super().prepare(model, request)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.steps.extend(f"{name} {len(part.label)}" for name, part in batch.items())

    def on_train_end(self, trainer, pl_module):
        self.spent = pl_module.spent, pl_module.total_steps


def naive_distillation(student, teacher, t):
    total = 0.0
    for s, r in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(v / t) for v in r]
        q = [math.exp(v / t) for v in s]
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return t * t * total / len(student)


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_distillation_by_a_naive_loop(t):
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = naive_distillation(student, teacher, t)
    assert distillation_loss(student, teacher, t).item() == pytest.approx(expected, rel=1e-5)
    assert distillation_loss(teacher, teacher, t).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("form", ["benchmark", "original"])
def test_losses_of_both_passes(form, resnet, task, recipe):
    request = task.request()
    options = OPTIONS | {"form": form, "alpha": 0.3, "ce_weight": 0.7}
    method = Scrub(**options, **recipe())
    method.prepare(resnet.eval(), request)
    shift = torch.tensor([1.0, 0.0, -1.0])
    for name, data in (("forget", request.forget), ("retain", request.retain)):
        batch = next(data.batches(20))
        with torch.no_grad():
            teacher = resnet(batch.image)
            loss = method.loss(lambda image: resnet(image) + shift, {name: batch}).item()
        distance = naive_distillation(teacher + shift, teacher, 4.0)
        entropy = F.cross_entropy(teacher + shift, batch.label).item()
        expected = {
            ("benchmark", "forget"): -(entropy + 0.3 * distance),
            ("benchmark", "retain"): entropy + 0.3 * distance,
            ("original", "forget"): -distance,
            ("original", "retain"): 0.7 * entropy + 0.3 * distance,
        }
        assert loss == pytest.approx(expected[form, name], abs=1e-4)


def test_climbs_count_in_the_budget_which_ends_in_mid_pass(resnet, task, recipe, fit):
    method = Watched(**(OPTIONS | {"msteps": 3}), **recipe(epochs=2))
    method.unlearn(resnet, task.request(), fit)
    retain = ["retain 32"] * 5 + ["retain 30"]
    assert method.steps == ["forget 10", *retain, *["retain 32"] * 5]  # 12 steps: two passes' worth


def test_it_climbs_again_while_steps_are_few(resnet, task, recipe, fit):
    method = Watched(**(OPTIONS | {"msteps": 8, "forget_batch_size": 4}), **recipe(epochs=3))
    method.unlearn(resnet, task.request(), fit)
    climb = ["forget 4", "forget 4", "forget 2"]
    assert [s for s in method.steps if "forget" in s] == climb  # 9 steps later it is too late
    method = Watched(**(OPTIONS | {"msteps": 8}), **recipe(epochs=3))
    method.unlearn(resnet, task.request(), fit)
    assert [i for i, s in enumerate(method.steps) if "forget" in s] == [0, 7]
    assert len(method.steps) == 18


def test_the_original_form_climbs_outside_the_budget(resnet, task, recipe, fit):
    method = Watched(**(OPTIONS | {"form": "original"}), **recipe(epochs=4, lr=0.001))
    method.unlearn(resnet, task.request(), fit)
    assert [s[:6] for s in method.steps] == (["forget"] + ["retain"] * 6) * 3 + ["retain"] * 6
    assert method.notes == {"forget_passes": 3, "retain_passes": 4}
    assert method.spent == (24, 24)


def test_without_climb_and_distillation_it_is_fine_tuning(vit, task, recipe, fit):
    twin = copy.deepcopy(vit)
    plain = Finetune(**recipe()).unlearn(vit, task.request(), fit).state_dict()
    options = {"form": "original", "max_passes": 0, "alpha": 0.0, "ce_weight": 1.0}
    scrub = Scrub(**OPTIONS | options, **recipe()).unlearn(twin, task.request(), fit).state_dict()
    assert all(torch.equal(value, scrub[key]) for key, value in plain.items())


def test_the_climb_is_what_forgets(resnet, task, recipe, fit):
    request = task.request()

    def healed(msteps):
        options = OPTIONS | {"msteps": msteps, "batch_norm": "train"}
        plan = recipe(lr=0.06, epochs=10, momentum=0.0, weight_decay=0.0)
        return Scrub(**options, **plan).unlearn(copy.deepcopy(resnet), request, fit)

    model = healed(40)
    assert compute_accuracy(model, request.forget) < 0.4
    assert compute_accuracy(model, request.retain) > 0.9
    assert compute_accuracy(healed(0), request.forget) > 0.8


def test_the_teacher_stays_what_the_model_was(resnet, task, recipe, fit):
    before = copy.deepcopy(resnet.state_dict())
    method = Scrub(**OPTIONS, **recipe())
    after = method.unlearn(resnet, task.request(), fit).state_dict()
    teacher = method.teacher.state_dict()
    assert all(torch.equal(before[k], teacher[k]) for k in before)
    assert not torch.equal(before["fc.weight"], after["fc.weight"])


def test_batch_norm_while_climbing_is_an_option(resnet, task, recipe):
    from types import SimpleNamespace

    module: object = SimpleNamespace(model=resnet.train())
    for batch_norm, climbing, training in (
        ("train", True, True), ("eval", True, False), ("eval", False, True),
    ):  # fmt: skip
        method = Scrub(**(OPTIONS | {"batch_norm": batch_norm}), **recipe())
        method.prepare(resnet, task.request())
        method.climbing = climbing
        method.on_train_epoch_start(None, module)
        assert resnet.conv1[1].training is training


@pytest.mark.parametrize(
    ("option", "value"),
    [("form", "new"), ("alpha", -1), ("temperature", 0), ("batch_norm", "off")],
)
def test_options_out_of_range_are_refused_by_name(option, value, recipe):
    with pytest.raises(ValueError, match=rf"method.{option} must be .*, got {value}"):
        Scrub(**(OPTIONS | {option: value}), **recipe())
