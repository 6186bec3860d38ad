"""Random relabelling trains on with wrong labels for the forget set alone."""

import copy

import pytest
import torch
from torch.nn import functional as F

from unlearn.core.types import Batch
from unlearn.methods.random_label import (
    RandomLabelling,
    draw_any_labels,
    draw_other_labels,
    replace_forget_labels,
)
from unlearn.models.inference import compute_accuracy, compute_logits

pytestmark = pytest.mark.numeric

PLAIN = {"exclude_true": True, "mix": "union", "seed": 0}


def test_new_labels_differ_repeat_and_spread():
    label = torch.arange(5).repeat(2000)
    new = draw_other_labels(label, 5, seed=1)
    assert not (new == label).any()
    assert torch.equal(new, draw_other_labels(label, 5, seed=1))
    assert not torch.equal(new, draw_other_labels(label, 5, seed=2))
    for c in range(5):
        counts = torch.bincount(new[label == c], minlength=5)
        assert counts[c] == 0
        assert (counts[counts > 0] / 2000 - 0.25).abs().max() < 0.04
        assert (counts > 0).sum() == 4


def test_only_the_forget_set_is_relabelled_by_a_naive_loop():
    forget, new = torch.tensor([2, 5, 9]), torch.tensor([0, 1, 2])
    index = torch.tensor([9, 1, 2, 12, 5, 0])
    batch = Batch(torch.zeros(6, 1, 1, 1), torch.tensor([7, 7, 7, 7, 7, 7]), index)
    table = dict(zip(forget.tolist(), new.tolist(), strict=True))
    expected = [table.get(i, 7) for i in index.tolist()]
    by_index = torch.full((13,), -1).scatter(0, forget, new)
    assert replace_forget_labels(batch, by_index).tolist() == expected == [2, 7, 0, 7, 1, 7]


def test_loss_is_that_of_the_new_labels(resnet, task, recipe):
    request = task.request()
    method = RandomLabelling(redraw=False, **PLAIN, **recipe())
    method.prepare(resnet.eval(), request)
    batch = next(request.get_all_samples().batches())
    label = batch.label.clone()
    label[torch.isin(batch.index, request.forget.index)] = method.new_label
    with torch.no_grad():
        expected = F.cross_entropy(resnet(batch.image), label).item()
        assert method.loss(resnet, {"all": batch}).item() == pytest.approx(expected, abs=1e-6)
    assert method.uses(0) == ("all",)


def test_the_forget_set_takes_its_new_labels(resnet, task, recipe, fit):
    request = task.request()
    given = request.forget.label.clone()
    method = RandomLabelling(redraw=False, **PLAIN, **recipe(epochs=5))
    healed = method.unlearn(resnet, request, fit)
    assert compute_accuracy(healed, request.forget) < 0.4  # the original: 1
    assert compute_accuracy(healed, request.retain) > 0.9
    predicted = compute_logits(healed, request.forget).argmax(1)
    assert (predicted == method.new_label).float().mean() > 0.7
    assert torch.equal(request.forget.label, given)


@pytest.mark.parametrize("redraw", [True, False])
def test_drawing_again_is_an_option(redraw, resnet, task, recipe, fit):
    drawn = []

    class Watched(RandomLabelling):
        def on_train_epoch_end(self, trainer, pl_module):
            drawn.append(self.new_label)

    method = Watched(redraw=redraw, **PLAIN, **recipe(epochs=4))
    method.unlearn(copy.deepcopy(resnet), task.request(), fit)
    assert len({tuple(d.tolist()) for d in drawn}) == (4 if redraw else 1)


def test_any_label_may_come_up_the_given_one_too():
    label = torch.arange(100).repeat(50)
    new = draw_any_labels(label, 100, seed=1)
    assert 0 < (new == label).float().mean() < 0.03
    assert len(new.unique()) == 100  # of a hundred classes, not of ten
    assert torch.equal(new, draw_any_labels(label, 100, seed=1))


def test_a_drawing_with_the_given_label_is_an_option(resnet, task, recipe):
    options = PLAIN | {"exclude_true": False}
    given = task.request().forget.label
    kept = set()
    for seed in range(5):
        method = RandomLabelling(redraw=False, **options | {"seed": seed}, **recipe())
        method.prepare(copy.deepcopy(resnet), task.request())
        kept.add(bool((method.new_label == given).any()))
    assert True in kept


def test_the_relabelled_may_come_first_in_every_epoch(resnet, task, recipe, fit):
    request, passes, drawn = task.request(), [], []

    class Watched(RandomLabelling):
        def loss(self, forward, batch):
            ((name, part),) = batch.items()
            passes.append((name, len(part.label)))
            drawn.append(tuple(self.new_label.tolist()))
            return super().loss(forward, batch)

    options = PLAIN | {"mix": "sequential"}
    method = Watched(redraw=True, **options, **recipe(epochs=2, batch_size=95))
    healed = method.unlearn(resnet, request, fit)
    once = [("forget", 10), ("retain", 95), ("retain", 95)]
    assert passes == once * 2
    assert len(set(drawn)) == 2  # per epoch of both passes, not per pass
    assert compute_accuracy(healed, request.retain) > 0.9


def test_an_unknown_mix_is_refused(recipe):
    with pytest.raises(ValueError, match=r"method\.mix must be union or sequential, got both"):
        RandomLabelling(redraw=True, **PLAIN | {"mix": "both"}, **recipe())
