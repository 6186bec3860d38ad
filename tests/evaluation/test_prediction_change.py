"""What changed against the original, by hand and at its extremes."""

from dataclasses import replace

import pytest
import torch

from unlearn.data.corruption.clean import Clean
from unlearn.data.task import Task
from unlearn.evaluation.evaluator import evaluate_metrics
from unlearn.evaluation.intervals import paired_interval, wilson_interval
from unlearn.evaluation.prediction_change import compare_by_class, compute_change, kl_to_original
from unlearn.evaluation.predictions import Predictions


@pytest.fixture
def plain(clean):
    """A task without corruption: 20 of 200 samples are listed as bad."""
    train, truth = Clean()(clean[0], count=0, seed=0)
    return Task(train, clean[1], truth, (torch.arange(20),))


def says(label, wrong=0):
    said = label.clone()
    said[:wrong] = (said[:wrong] + 1) % 3
    return 4.0 * torch.nn.functional.one_hot(said, 3).float()


def model(task, forget=0, retain=0, test=0, **more):
    train = torch.cat([says(task.train.label[:20], forget), says(task.train.label[20:], retain)])
    return Predictions(train, train, says(task.test.label, test), None, **more)


def test_the_original_itself_has_changed_nothing(plain):
    own = model(plain, 2, 9, 6)
    row = compute_change(replace(own, original=own), plain, None)
    assert row["forget/agreement"] == row["forget/agreement_original"] == pytest.approx(0.9)
    assert row["retain/agreement"] == pytest.approx(171 / 180)
    assert row["test/accuracy_original"] == pytest.approx(0.9)
    for key in ("forget/changed", "retain/changed", "test/changed", "test/accuracy_lost"):
        assert row[key] == 0
    assert row["test/kl_original"] == row["retain/kl_original"] == pytest.approx(0, abs=1e-6)


def test_what_is_forgotten_and_what_is_lost(plain):
    known = torch.full((200,), -1)
    known[:10] = (plain.train.label[:10] + 1) % 3
    task = replace(plain, truth=replace(plain.truth, known_label=known))
    row = compute_change(model(task, 20, 0, 3, original=model(task)), task, None)
    assert (row["forget/agreement_original"], row["forget/agreement"]) == (1, 0)
    assert (row["forget/accuracy_known_original"], row["forget/accuracy_known"]) == (0, 1)
    assert (row["forget/changed"], row["retain/changed"]) == (1, 0)
    assert row["test/accuracy_lost"] == pytest.approx(3 / 60)
    label = plain.test.label
    worst = max(float((label[:3] == k).sum() / (label == k).sum()) for k in range(3))
    assert row["test/accuracy_lost_worst_class"] == pytest.approx(worst)


def test_without_an_original_or_a_test_set(plain):
    own = model(plain)
    assert evaluate_metrics({"change": compute_change}, own, plain)["forget/agreement"] is None
    nothing = plain.test.rows(torch.arange(0))
    empty = replace(own, test=own.test[:0])
    row = evaluate_metrics(
        {"change": compute_change}, replace(empty, original=empty), replace(plain, test=nothing)
    )
    assert row["forget/agreement"] == 1
    assert row["test/accuracy_original"] is None
    assert not [k for k in row if k.startswith("failed")]


def test_divergence_by_hand():
    before, after = torch.tensor([[0.0, 0.0]]), torch.log(torch.tensor([[0.25, 0.75]]))
    wanted = 0.5 * torch.log(torch.tensor(0.5 / 0.25)) + 0.5 * torch.log(torch.tensor(0.5 / 0.75))
    assert kl_to_original(before, after) == pytest.approx(wanted.item())
    with pytest.raises(ValueError, match="no sample"):
        kl_to_original(before[:0], after[:0])


def test_intervals():
    # Newcombe (1998), table I: 81 of 263 by the score method.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20)[0] == 0
    assert wilson_interval(20, 20)[1] == 1
    n = 400
    before = torch.arange(n) < 300
    after = (torch.arange(n) >= 20) & (torch.arange(n) < 310)  # 20 fell, 10 rose
    low, high = paired_interval(before, after)
    spread = 1.96 * ((30 / n - (10 / n) ** 2) / n) ** 0.5
    assert (low, high) == pytest.approx((-10 / n - spread, -10 / n + spread), abs=0.006)
    low, high = paired_interval(before, before)  # nothing changed: narrow, but not sure
    assert -low == high == pytest.approx(1.96 / 402, abs=1e-4)
    assert paired_interval(before, ~before & False)[1] < -0.6


def test_classes_without_samples_are_left_out():
    label = torch.tensor([0, 0, 2])
    rows = compare_by_class(says(label), says(label, 1), label, ["a", "b", "c"])
    assert [(r["class"], r["count"], r["before"], r["after"]) for r in rows] == [
        ("a", 2, 1.0, 0.5),
        ("c", 1, 1.0, 1.0),
    ]
