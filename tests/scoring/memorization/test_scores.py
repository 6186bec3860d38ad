"""Scores of memorization: by hand, by a naive loop, and on samples with planted wrong labels."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearn.core.types import Request
from unlearn.models.inference import compute_embedding, compute_logits
from unlearn.models.resnet9 import ResNet9
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.memorization.agreement import (
    group_overlap,
    kendall_correlation,
    spearman_correlation,
)
from unlearn.scoring.memorization.holdout_retraining import (
    HoldoutRetraining,
    finetune_until_converged,
    symmetric_divergence,
)
from unlearn.scoring.memorization.learning_events import (
    EVENTS,
    LearningEvent,
    LearningEvents,
    compute_events,
)
from unlearn.scoring.memorization.loss_curvature import (
    CurvatureRecorder,
    LossCurvature,
    compute_curvature,
)
from unlearn.scoring.memorization.memorization import (
    Memorization,
    draw_subset,
    estimate_memorization,
    estimate_reliability,
)
from unlearn.scoring.memorization.partition import AtRandom, ByScore
from unlearn.scoring.score_groups import sort_ascending
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant

NAMES = ("low", "mid", "high")


def recipe(epochs=8, lr=0.05):
    return Pretraining(
        epochs=epochs, batch_size=20, capacity=1.0, density=0.0, schedule=Constant(),
        optimizer=lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9),
    )  # fmt: skip


def learn(data, engine, recorders=(), seed=0, **options):
    torch.manual_seed(seed)
    net = ResNet9(in_channels=1, image_size=12, num_classes=3, width=4)
    notes = pretrain(
        net, data, recipe(**options), engine, augment=None, seed=seed, recorders=recorders
    )
    return net, notes


@pytest.fixture(scope="module")
def watched(request):
    """A network that was watched while it learned wrong labels, and who watched."""
    cache = {}

    def make(task, engine):
        if not cache:
            watchers = [LearningEvents(mode="online"), CurvatureRecorder(h=0.01, every=1)]
            net, notes = learn(task.train, engine, watchers)
            records = {k: v for w in watchers for k, v in w.get_records().items()}
            cache["all"] = net, notes, records
        return cache["all"]

    return make


def subject(task, net, records=None, validation=None, subset_models=None):
    return ScoringInputs(
        data=task.train,
        model=lambda: copy.deepcopy(net),
        records=records or {},
        validation=validation,
        test=task.test,
        subset_models=subset_models or (lambda parts: [net for _ in parts]),
    )


def test_events_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    found = dict(zip(EVENTS, compute_events(p.log(), torch.tensor([1, 0])).tolist(), strict=True))
    assert found["confidence"] == pytest.approx([0.25, 1])
    assert found["max_confidence"] == pytest.approx([0.5, 1])
    assert found["entropy"] == pytest.approx([-1.5 * math.log(2), 0])  # 0 log 0 is 0
    assert found["binary_accuracy"] == [0, 1]


def test_events_are_averaged_by_row_as_a_loop_does(task):
    watcher = LearningEvents(mode="online")
    watcher.start_recording(task.train, epochs=2)
    generator = torch.Generator().manual_seed(0)
    seen = {}
    for _ in range(2):
        for rows in torch.randperm(200, generator=generator).split(48):
            outputs = torch.randn(len(rows), 3, generator=generator)
            watcher.add_batch(outputs, task.train.label[rows], rows)
            for i, row in enumerate(rows.tolist()):
                p = outputs[i].softmax(0)[task.train.label[row]].item()
                seen.setdefault(row, []).append(p)
    mean = watcher.get_records()["events/confidence"]
    assert mean.tolist() == pytest.approx([sum(seen[i]) / 2 for i in range(200)], abs=1e-6)


def test_watching_changes_no_weight(task, engine, watched):
    net, notes, records = watched(task, engine)
    plain, _ = learn(task.train, engine)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key
    assert records["events/binary_accuracy"].mul(8).frac().abs().max() < 1e-5  # 8 epochs
    assert notes["seconds/events"] > 0
    assert set(records) == {f"events/{e}" for e in EVENTS} | {"curvature"}


@pytest.mark.parametrize("event", EVENTS)
def test_what_is_learned_late_is_memorized(event, task, engine, watched):
    net, _, records = watched(task, engine)
    value = LearningEvent(event=event, mode="online")(subject(task, net, records))
    if event == "binary_accuracy":
        assert -1 <= value.min() <= value.max() <= 0
    wrong = task.truth.corrupted
    assert value[wrong].mean() > value[~wrong].mean()
    assert spearman_correlation(value, wrong.float()) > 0.1


def test_curvature_finds_wrong_labels(task, engine, watched):
    net, _, records = watched(task, engine)
    value = LossCurvature(h=0.01, every=1)(subject(task, net, records))
    wrong = task.truth.corrupted
    assert value[wrong].mean() > value[~wrong].mean()


def test_a_pass_after_each_epoch_asks_the_network_in_eval_mode(task, engine):
    watcher = LearningEvents(mode="eval_pass")
    net, _ = learn(task.train, engine, [watcher], epochs=1)
    p = compute_logits(net, task.train).softmax(1).gather(1, task.train.label[:, None])[:, 0]
    assert torch.allclose(watcher.get_records()["events/confidence"], p, atol=1e-5)


def test_curvature_of_a_loss_that_is_linear_or_quadratic_in_the_image():
    image = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(4).long()
    flat = compute_curvature(lambda x: torch.zeros(len(x), 3) + 0 * x.sum(), image, label, 0.01)
    assert flat.tolist() == [0, 0, 0, 0]

    def two_classes(x):  # the loss is softplus(s): its slope in every pixel is sigmoid(s)
        s = x.flatten(1).sum(1)
        return torch.stack([-s, torch.zeros_like(s)], 1)

    found = compute_curvature(two_classes, image, label, 0.01)
    s = image.flatten(1).sum(1)
    moved = s + 0.01 * 4 / 2  # the sign is +1 in all four pixels, of norm 2
    expected = 2 * (moved.sigmoid() - s.sigmoid())
    assert torch.allclose(found, expected, atol=1e-5)


def test_divergence_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    expected = 0.5 * (0.4 * math.log(0.9 / 0.5) + 0.4 * math.log(0.5 / 0.1))
    assert symmetric_divergence(p.log(), q.log()).item() == pytest.approx(expected, rel=1e-5)
    assert symmetric_divergence(p.log(), p.log()).item() == 0
    sure = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    assert torch.isfinite(symmetric_divergence(sure, sure.flip(0))).all()


def holdout(**options):
    usual = {"holdout": "validation", "epochs": 5, "patience": 4, "batch_size": 20, "seed": 0}
    usual["optimizer"] = lambda p: torch.optim.SGD(p, lr=0.02)
    return HoldoutRetraining(**usual | options)


def test_holdout_retraining_without_retraining_is_zero(task, network):
    network.eval()
    value = holdout(epochs=0)(subject(task, network, validation=task.test))
    assert value.abs().max() == 0


def test_holdout_retraining_trains_a_copy_and_compares(task, network):
    before = copy.deepcopy(network.eval().state_dict())
    score = holdout(epochs=2)
    value = score(subject(task, network, validation=task.test))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    twin = copy.deepcopy(network)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.02)
    finetune_until_converged(
        twin, task.test, optimizer, epochs=2, patience=4, batch_size=20, seed=0
    )
    expected = symmetric_divergence(
        compute_logits(network, task.train), compute_logits(twin, task.train)
    )
    assert torch.equal(value, expected)
    assert value.min() > 0
    assert score.notes == {"epochs": 2}
    with pytest.raises(ValueError, match=r"needs held-out images: set validation=0.1"):
        score(subject(task, network))
    same = holdout(epochs=2, holdout="test")(subject(task, network))
    assert torch.equal(same, value)


@pytest.mark.slow
def test_holdout_retraining_ranks_wrong_labels_high(task, engine):
    torch.manual_seed(0)
    net = ResNet9(in_channels=1, image_size=12, num_classes=3, width=8)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    finetune_until_converged(
        net, task.train, optimizer, epochs=40, patience=40, batch_size=20, seed=0
    )
    assert (compute_logits(net, task.train).argmax(1) == task.train.label).float().mean() > 0.99
    value = holdout(epochs=5)(subject(task, net, validation=task.test))
    wrong = task.truth.corrupted
    assert value[wrong].mean() > value[~wrong].mean()
    assert spearman_correlation(value, wrong.float()) > 0


def test_holdout_retraining_stops_when_the_loss_does(task):
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    plan = {"patience": 2, "batch_size": 30, "seed": 0}
    still = torch.optim.SGD(net.parameters(), lr=0.0)
    assert finetune_until_converged(net, task.test, still, epochs=30, **plan) < 20
    falls = torch.optim.SGD(net.parameters(), lr=0.01)
    assert finetune_until_converged(net, task.test, falls, epochs=6, **plan) == 6


def test_the_estimator_equals_the_formula():
    g = torch.Generator().manual_seed(0)
    inside, correct = torch.rand(9, 30, generator=g) < 0.7, torch.rand(9, 30, generator=g) < 0.5
    inside[:, 0], inside[:, 1] = True, False
    found = estimate_memorization(inside, correct)
    for i in range(30):
        seen = [correct[k, i].item() for k in range(9) if inside[k, i]]
        unseen = [correct[k, i].item() for k in range(9) if not inside[k, i]]
        parts = [sum(p) / len(p) if p else 0 for p in (seen, unseen)]
        assert found[i].item() == pytest.approx(parts[0] - parts[1])


def test_reliability():
    g = torch.Generator().manual_seed(0)
    rare = torch.arange(60) < 20
    inside = torch.stack([draw_subset(60, 0.5, k) for k in range(40)])
    good = estimate_memorization(inside, ~rare | inside)
    assert good.tolist() == [1.0] * 20 + [0.0] * 40
    assert estimate_reliability(inside, ~rare | inside) == pytest.approx(1)
    assert abs(estimate_reliability(inside, torch.rand(40, 60, generator=g) < 0.5)) < 0.6
    assert math.isnan(estimate_reliability(inside[:3], inside[:3]))


def test_subsets_have_their_size_and_seed():
    mask = draw_subset(101, 0.7, 3)
    assert mask.sum() == 70
    assert torch.equal(mask, draw_subset(101, 0.7, 3))
    assert not torch.equal(mask, draw_subset(101, 0.7, 4))


class ByHeart(nn.Module):
    """Knows what it saw; else names the right class."""

    def __init__(self, rows, given, right):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        said = right.clone()
        said[rows] = given[rows]
        self.outputs = F.one_hot(said, 3).float()
        self.at = 0

    def forward(self, x):
        self.at += len(x)
        return self.outputs[self.at - len(x) : self.at]


def test_memorization_is_of_the_wrong_labels_alone(task):
    score = Memorization(num_models=12, subset_fraction=0.5, seed=0)
    made = []

    def train(parts):
        for rows, seed in parts:
            made.append((len(rows), seed))
            yield ByHeart(rows, task.train.label, task.truth.clean_label)

    value = score(subject(task, None, subset_models=train))
    assert torch.equal(value, task.truth.corrupted.float())
    assert made == [(100, k) for k in range(12)]
    assert score.notes["standard_error"] == pytest.approx(math.sqrt(4 / 4 / 12))
    assert score.center == 0.5


def test_agreement_by_hand():
    a, b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    assert spearman_correlation(a, b) == pytest.approx(0.8)
    assert kendall_correlation(a, b) == pytest.approx(4 / 6)
    assert spearman_correlation(a, -a) == -1
    assert math.isnan(spearman_correlation(a, torch.ones(4)))
    many = torch.linspace(0, 1, 90)
    assert group_overlap(many, 2 * many, 20, ("median", "median")) == {
        "low": 1,
        "mid": 1,
        "high": 1,
    }
    assert group_overlap(many, -many, 20, ("median", "median"))["high"] == 0


@pytest.fixture
def request_(task):
    plain = task.request()
    return Request(plain.forget, plain.retain, {"score": torch.arange(200.0).flip(0)})


def test_a_partition_by_score_is_in_order_and_whole(request_):
    parts = ByScore(names=NAMES, record="score", tie_seed=0)(nn.Identity(), request_)
    assert list(parts) == list(NAMES)
    # the score falls with the index
    assert parts["low"].tolist() == [6, 7, 8, 9]
    assert parts["high"].tolist() == [0, 1, 2]
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(10))
    with pytest.raises(ValueError, match=r"needs a score.*records are score"):
        ByScore(names=NAMES, record="other", tie_seed=0)(nn.Identity(), request_)
    with pytest.raises(ValueError, match="10 forget samples into 11"):
        ByScore(names=[str(i) for i in range(11)], record="score", tie_seed=0)(
            nn.Identity(), request_
        )


def test_a_random_partition_has_the_same_sizes_and_is_drawn_once(request_):
    partition = AtRandom(names=NAMES, seed=0)
    parts = partition(nn.Identity(), request_)
    assert [len(p) for p in parts.values()] == [4, 3, 3]
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(10))
    again = partition(nn.Identity(), request_)
    assert all(torch.equal(parts[n], again[n]) for n in NAMES)
    assert not torch.equal(parts["low"], torch.arange(4))


def test_one_part_is_everything(request_):
    parts = ByScore(names=["all"], record="score", tie_seed=0)(nn.Identity(), request_)
    assert parts["all"].tolist() == list(range(10))
    assert len(sort_ascending(torch.zeros(10))) == 10


def test_features_are_what_the_head_sees(network, task):
    phi = compute_embedding(network, task.train)
    assert phi.shape == (200, 4)
    assert torch.allclose(network.fc(phi), compute_logits(network, task.train), atol=1e-5)
