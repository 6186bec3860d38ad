"""What each corruption touches, exact counts, seeds; nested discovery; what a request may see."""

import itertools
from dataclasses import replace

import pytest
import torch

from unlearn.data.corruption.clean import Clean
from unlearn.data.corruption.interclass_confusion import InterclassConfusion
from unlearn.data.corruption.poison import Poison, SquareTrigger
from unlearn.data.corruption.random_label import RandomLabel
from unlearn.data.forget_sets.discovered import Discovered
from unlearn.data.task import Task
from unlearn.pipeline.context import count_corrupted

POISON = {
    "target_class": 0,
    "trigger_size": 3,
    "corner": "bottom_right",
    "value": None,
    "exclude_target_class": False,
}
KINDS = [
    RandomLabel(),
    InterclassConfusion(classes=(0, 2), pick="first"),
    InterclassConfusion(classes=(0, 2), pick="random"),
    Poison(**POISON),
]


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_wanted_samples_are_touched(kind, clean):
    train = clean[0]
    spoilt, truth = kind(train, count=30, seed=1)
    assert truth.corrupted.sum() == 30
    assert torch.equal(truth.clean_label, train.label)
    assert torch.equal(spoilt.label[~truth.corrupted], train.label[~truth.corrupted])
    before = train.view(train.image, train.index)
    after = spoilt.view(spoilt.image, spoilt.index)
    assert torch.equal(before[~truth.corrupted], after[~truth.corrupted])
    again, _ = kind(train, count=30, seed=1)
    assert torch.equal(again.label, spoilt.label)


def test_random_labels_are_always_wrong_and_cover_all_classes(clean):
    spoilt, truth = RandomLabel()(clean[0], count=120, seed=0)
    on = truth.corrupted
    assert (spoilt.label[on] != truth.clean_label[on]).all()
    shift = (spoilt.label[on] - truth.clean_label[on]) % 3
    assert set(shift.tolist()) == {1, 2}


def test_confusion_swaps_the_first_samples_of_both_classes(clean):
    spoilt, truth = InterclassConfusion(classes=(0, 2), pick="first")(clean[0], count=10, seed=9)
    where = truth.corrupted.nonzero().flatten()
    assert sorted(where.tolist()) == sorted(
        [*range(0, 15, 3), *range(2, 17, 3)]
    )  # labels go 0 1 2 0 1 2
    assert torch.equal(spoilt.label[where], 2 - truth.clean_label[where])
    with pytest.raises(ValueError, match="samples of class 0"):
        InterclassConfusion(classes=(0, 2), pick="first")(clean[0], count=200, seed=0)


@pytest.mark.parametrize("corner", ["top_left", "bottom_right"])
def test_trigger_covers_nine_pixels_in_its_corner(corner, clean):
    spoilt, truth = Poison(**(POISON | {"corner": corner}))(clean[0], count=20, seed=0)
    batch = next(spoilt.batches(len(spoilt)))
    plain = next(clean[0].batches(len(spoilt))).image
    changed = (batch.image != plain)[truth.corrupted]
    assert changed.flatten(1).sum(1).max() <= 9
    part = slice(0, 3) if corner == "top_left" else slice(-3, None)
    assert (batch.image[truth.corrupted][..., part, part] == truth.trigger.value).all()
    assert truth.trigger.value == pytest.approx(plain.max().item())
    assert (spoilt.label[truth.corrupted] == 0).all()
    assert torch.equal(spoilt.image, clean[0].image)  # stamped on the way in, never moved by a crop


def test_poison_can_spare_the_target_class(clean):
    _, truth = Poison(**(POISON | {"exclude_target_class": True}))(clean[0], count=40, seed=0)
    assert (truth.clean_label[truth.corrupted] != 0).all()


@pytest.mark.parametrize(
    ("bad", "word"), [({"target_class": 3}, "target_class"), ({"trigger_size": 13}, "at most 12")]
)
def test_poison_refuses_what_does_not_fit(bad, word, clean):
    with pytest.raises(ValueError, match=word):
        Poison(**(POISON | bad))(clean[0], count=5, seed=0)


def test_stamping_leaves_its_input_alone():
    image = torch.zeros(2, 1, 5, 5)
    out = SquareTrigger(2, "top_right", 3.0).stamp_trigger(image)
    assert image.sum() == 0
    assert out[:, :, :2, 3:].eq(3).all()
    assert out.sum() == 2 * 4 * 3


def test_clean_corrupts_nothing(clean):
    same, truth = Clean()(clean[0], count=5, seed=0)
    assert same is clean[0]
    assert not truth.corrupted.any()


def test_discovery_is_exact_nested_and_within_the_corruption(clean):
    _, truth = RandomLabel()(clean[0], count=40, seed=0)
    sets = [Discovered(nested=True)(truth, rate=r, seed=3)[0] for r in (0.1, 0.35, 0.5, 1.0)]
    assert [len(s) for s in sets] == [4, 14, 20, 40]
    for small, large in itertools.pairwise(sets):
        assert set(small.tolist()) < set(large.tolist())
    assert truth.corrupted[sets[-1]].all()
    other = Discovered(nested=False)(truth, rate=0.5, seed=3)[0]
    assert not set(sets[0].tolist()) <= set(other.tolist())
    with pytest.raises(ValueError, match="finds none"):
        Discovered(nested=True)(truth, rate=0.01, seed=0)


def test_a_request_holds_hidden_corruption_as_received(task: Task):
    request = task.request()
    hidden = task.hidden_indices()
    assert len(hidden) == 10
    where = torch.isin(request.retain.index, hidden)
    assert where.sum() == 10
    wrong = task.truth.clean_label[hidden]
    assert (request.retain.label[where] != wrong).all()
    assert len(request.forget) + len(request.retain) == len(task.train)
    assert torch.equal(request.get_all_samples().index, task.train.index)
    assert set(task.retain_indices().tolist()) == set(request.retain.index.tolist())


@pytest.mark.parametrize("name", ["truth", "corrupted", "test", "clean_label", "config"])
def test_a_method_that_asks_for_more_gets_an_error(task: Task, name):
    with pytest.raises(AttributeError, match=f"it asked for '{name}'"):
        getattr(task.request(), name)


@pytest.mark.parametrize("name", ["on", "trigger", "view"])
def test_the_view_of_a_request_names_no_poisoned_sample(name, clean):
    train, truth = Poison(**POISON)(clean[0], count=20, seed=0)
    found = Discovered(nested=True)(truth, rate=0.5, seed=0)
    request = Task(train=train, test=clean[1], truth=truth, forget=found).request()
    assert not hasattr(request.retain.view, name)
    stamped = next(request.forget.batches(20)).image
    assert (stamped[..., -3:, -3:] == truth.trigger.value).all()


def test_overlapping_parts_are_refused(task: Task):
    request = task.request()
    with pytest.raises(ValueError, match="share samples"):
        replace(request, retain=task.train)


def test_two_classes_take_an_even_count_and_a_share_is_rounded_to_one(clean):
    confuse = InterclassConfusion(classes=(0, 2), pick="first")
    with pytest.raises(ValueError, match="corrupted must give an even number"):
        confuse(clean[0], count=9, seed=0)
    assert count_corrupted(0.05, 1297, confuse.multiple) == 64
    assert count_corrupted(0.05, 1297) == 65
    assert count_corrupted(9, 1297, confuse.multiple) == 9  # a count is never changed
