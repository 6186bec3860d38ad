"""KL, JS, KLOM, LiRA, U-LiRA and relearn time: by hand, in closed form, at their extremes."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from unlearn.data.corruption.clean import Clean
from unlearn.data.task import Task
from unlearn.evaluation import reference_distance
from unlearn.evaluation.evaluator import evaluate_metrics
from unlearn.evaluation.predictions import Predictions, SeedPairs, ShadowModels
from unlearn.pipeline.reference_models import compute_forget_loss, count_relearn_steps


@pytest.fixture
def plain(clean):
    """A task without corruption: 20 of 200 samples are to be forgotten; 60 test samples."""
    train, truth = Clean()(clean[0], count=0, seed=0)
    return Task(train, clean[1], truth, (torch.arange(20),))


def normal(*shape, mean=0.0, seed=0):
    return mean + torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_margin_is_the_logit_of_the_labels_probability():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    found = reference_distance.logit_margin(p.log(), torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([math.log(0.7 / 0.3), math.log(0.1 / 0.9)], rel=1e-5)
    sure = reference_distance.logit_margin(torch.tensor([[1000.0, 0.0]]), torch.tensor([0]))
    assert sure.item() == 1000  # where p is 1, and log(p / (1 - p)) of it infinite


def test_divergences_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    kl, js = reference_distance.compute_divergences(p.log(), q.log())
    assert kl == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), rel=1e-5)
    m = (0.7, 0.3)
    one = sum(a * math.log(a / b) for a, b in zip((0.5, 0.5), m, strict=True))
    two = sum(a * math.log(a / b) for a, b in zip((0.9, 0.1), m, strict=True))
    assert js == pytest.approx((one + two) / 2, rel=1e-5)
    assert reference_distance.compute_divergences(p.log(), p.log()) == (0, 0)
    sure = torch.tensor([[1000.0, 0.0]])
    assert reference_distance.compute_divergences(sure, sure.flip(1))[1] == pytest.approx(
        math.log(2)
    )


def test_divergence_of_gaussians_in_closed_form():
    first, second = normal(4000, 2), 3 * normal(4000, 2, seed=1) + 2
    # log(3 / 1) + (1 + 2^2) / (2 * 9) - 1/2
    expected = math.log(3) + 5 / 18 - 0.5
    assert reference_distance.gaussian_kl(first, second).tolist() == pytest.approx(
        [expected] * 2, rel=0.1
    )
    assert reference_distance.gaussian_kl(first, first).abs().max() < 1e-12
    assert torch.isfinite(reference_distance.gaussian_kl(first * 0, second * 0)).all()


def test_likelihood_ratio_by_hand():
    one = torch.tensor([[1.0, 5.0], [3.0, 5.0], [99.0, 5.0]])
    where = torch.tensor([[True, True], [True, True], [False, True]])
    two = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    found = reference_distance.likelihood_ratio(
        torch.tensor([2.0, 1.0]), one, two, where, torch.ones_like(two).bool()
    )
    # means (2, 5) and (0, 1); variances 2 / 3 and 2 / 2 over all samples together
    v = 2 / 3
    first = -0 / 2 / v - math.log(v) / 2 - (-(2.0**2) / 2 - 0)
    second = -(4.0**2) / 2 / v - math.log(v) / 2 - 0
    assert found.tolist() == pytest.approx([first, second], rel=1e-5)


def test_separation_at_its_extremes():
    high, low = normal(500, mean=50), normal(500, seed=1)
    assert reference_distance.separation_metrics(high, low, 0.01) == (1, 1)
    assert reference_distance.separation_metrics(low, high, 0.01)[0] == 0
    area, rate = reference_distance.separation_metrics(low, normal(500, seed=2), 0.1)
    assert area == pytest.approx(0.5, abs=0.05)
    assert rate == pytest.approx(0.1, abs=0.06)


def predictions(task, confidence, **more):
    """Return a model that is equally sure of every label."""

    def outputs(label):
        rest = math.log((1 - confidence) / 2)
        return torch.where(nn.functional.one_hot(label, 3).bool(), math.log(confidence), rest)

    train = outputs(task.train.label)
    return Predictions(train, train, outputs(task.test.label), None, **more)


def test_distances_per_set(plain):
    ours, theirs = predictions(plain, 0.9), predictions(plain, 0.6)
    ours.train[20:] = theirs.train[20:]
    row = reference_distance.compute_distances(ours, plain, theirs)
    assert row["kl/retain"] == row["js/retain"] == 0
    expected = 0.6 * math.log(0.6 / 0.9) + 0.4 * math.log(0.4 / 0.1)
    assert row["kl/forget"] == pytest.approx(expected, rel=1e-4)
    assert row["kl/test"] == pytest.approx(expected, rel=1e-4)
    assert 0 < row["js/test"] < math.log(2)


def twins(shift):
    """Return five pairs whose margins differ on the forget set alone."""
    ours, theirs = normal(5, 260), normal(5, 260, seed=1)
    ours[:, :20] += shift
    return SeedPairs(ours, theirs, 200, 60)


def test_klom_sees_where_unlearned_models_are_apart(plain):
    near = reference_distance.compute_klom(
        predictions(plain, 0.9, twins=twins(0)), plain, None, num_models=5
    )
    far = reference_distance.compute_klom(
        predictions(plain, 0.9, twins=twins(10)), plain, None, num_models=5
    )
    assert far["klom/forget"] > 10 * near["klom/forget"]
    for part in ("retain", "test"):
        assert far[f"klom/{part}"] == near[f"klom/{part}"]
        assert far[f"klom/{part}_95"] > far[f"klom/{part}"] > 0
    pair = twins(10)
    value = (
        reference_distance.gaussian_kl(pair.retrained[:, 200:], pair.unlearned[:, 200:])
        .mean()
        .item()
    )
    assert far["klom/test"] == pytest.approx(value)


def test_ulira_tells_unlearned_from_retrained_models_if_they_differ(plain):
    def attack(shift):
        model = predictions(plain, 0.9, twins=twins(shift))
        return reference_distance.compute_ulira(model, plain, None, num_models=5, max_fpr=0.01)

    assert attack(20) == {"ulira/auc": 1, "ulira/tpr": 1}
    assert attack(0)["ulira/auc"] == pytest.approx(0.5, abs=0.2)
    assert attack(0)["ulira/tpr"] < 0.2


def test_lira_finds_members_by_the_models_that_saw_them(plain):
    inside = torch.rand(40, 200, generator=torch.Generator().manual_seed(0)) < 0.7
    margin = normal(40, 200) * 0.3 + torch.where(inside, 3.0, -1.0)
    shadows = ShadowModels(inside, margin)
    unseen = predictions(plain, 1 / (1 + math.e))  # margin -1, as of what was never seen
    seen = predictions(plain, 1 / (1 + math.exp(-3)), shadows=shadows)
    row = reference_distance.compute_lira(seen, plain, unseen, max_fpr=0.01)
    assert (row["lira/auc"], row["lira/tpr"]) == (1, 1)
    assert (row["lira/member"], row["lira/member_retrained"]) == (1, 0)
    row = reference_distance.compute_lira(
        replace(unseen, shadows=shadows), plain, unseen, max_fpr=0.01
    )
    assert row["lira/auc"] == pytest.approx(0.5)
    assert row["lira/member"] == 0


def test_lira_leaves_out_whom_too_few_models_saw_or_missed(plain):
    inside = torch.arange(8)[:, None].expand(8, 200) < 4
    inside = inside.clone()
    inside[:, 0], inside[:, 1], inside[:, 2] = True, torch.arange(8) < 7, torch.arange(8) < 1
    assert reference_distance.has_enough_models(inside).nonzero().flatten().tolist() == list(
        range(3, 200)
    )
    shadows = ShadowModels(inside, normal(8, 200))
    row = reference_distance.compute_lira(
        predictions(plain, 0.9, shadows=shadows), plain, predictions(plain, 0.5)
    )
    assert row["lira/judged"] == pytest.approx(17 / 20)
    assert math.isfinite(row["lira/auc"])


def test_what_was_not_made_has_no_value(plain):
    names = ("distances", "klom", "ulira", "lira", "relearn_time")
    row = evaluate_metrics(
        {n: getattr(reference_distance, f"compute_{n}") for n in names},
        predictions(plain, 0.9),
        plain,
    )
    assert set(row.values()) == {None}
    row = reference_distance.compute_relearn_time(
        predictions(plain, 0.9, relearned=(10, 40)), plain, None
    )
    assert row == {
        "relearn_steps": 10, "relearn_steps_retrained": 40, "relearn_gap": 0.75,
    }  # fmt: skip


def test_relearning_counts_steps_on_a_copy(plain):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    data = plain.train.rows(torch.arange(20))
    plan = {"tolerance": 0.0, "max_steps": 60, "batch_size": 10, "seed": 0}
    plan["optimizer"] = lambda p: torch.optim.SGD(p, lr=0.05)
    before = compute_forget_loss(model, data)
    assert count_relearn_steps(model, data, before, plan) == 0
    near, far = (count_relearn_steps(model, data, share * before, plan) for share in (0.8, 0.4))
    assert 0 < near < far < 60
    assert count_relearn_steps(model, data, -1.0, plan) == 60
    assert compute_forget_loss(model, data) == before
