"""The accuracy of single classes: the worst is found, and what chance explains is not called lost."""

import pytest
import torch

from unlearn.data.corruption.clean import Clean
from unlearn.data.task import Task
from unlearn.evaluation.class_losses import (
    compare_classes,
    measure_losses,
    summarize_worst_class,
)
from unlearn.evaluation.predictions import Predictions


def logits(said):
    return 4.0 * torch.nn.functional.one_hot(said, 3).float()


def test_a_class_that_is_gone_is_lost_though_the_others_gain():
    label = torch.arange(90) % 3
    before, after = label.clone(), label.clone()
    before[(label == 1).nonzero().flatten()[:20]] = 0  # class b had 10 of 30
    before[(label == 0).nonzero().flatten()[:10]] = 2  # class a gains 10
    after[label == 1] = 2
    losses = measure_losses(logits(before), logits(after), label, "abc", "held-out images")
    a, b, c = losses
    assert [one.is_lost for one in losses] == [False, True, False]
    assert (b.before, b.after, b.count) == (pytest.approx(1 / 3), 0.0, 30)
    assert 0 < b.low < b.loss < b.high < 1
    assert b.describe().startswith("class b is almost gone: 33% to 0% of 30 held-out images (-33 ")
    assert (a.loss, c.loss) == (pytest.approx(-1 / 3), 0.0)
    assert a.low < 0


def test_two_images_of_a_class_prove_nothing():
    label = torch.tensor([0, 0, 1, 1])
    (a, _) = measure_losses(logits(label), logits(torch.ones_like(label)), label, "ab", "x")
    assert a.loss == 1.0
    assert not a.is_lost


def test_the_interval_holds_for_all_classes_at_once():
    label = torch.cat([torch.zeros(40), torch.ones(40), torch.full((40,), 2)]).long()
    after = label.clone()
    after[:5] = 1
    alone = measure_losses(logits(label[:40]), logits(after[:40]), label[:40], "abc", "x")[0]
    joint = measure_losses(logits(label), logits(after), label, "abc", "x")[0]
    assert joint.low < alone.low
    assert joint.high > alone.high


def test_without_held_out_images_the_retain_set_is_compared(clean):
    train, truth = Clean()(clean[0], count=0, seed=0)
    task = Task(train, clean[1].rows(torch.arange(0)), truth, (torch.arange(20),))
    label = train.label
    after = label.clone()
    after[label == 2] = 0
    none = logits(label[:0])
    made = [Predictions(logits(x), logits(x), none, None) for x in (label, after)]
    losses = compare_classes(made[0], made[1], task, ["a", "b", "c"])
    assert losses[0].name == "c"
    assert losses[0].images == "retain images"
    assert losses[0].count == int((label[20:] == 2).sum())
    row = summarize_worst_class(losses)
    assert row["worst_class/lost"] == "c"
    assert row["worst_class/loss"] == 1.0
    assert summarize_worst_class([]) == {}
