"""Importances and dampening by hand and by naive loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearn.core.types import ImageSet
from unlearn.methods.assd import ASSD
from unlearn.methods.components.dampening import Dampening
from unlearn.methods.components.importance import (
    compute_importance,
    compute_sorted_ratios,
    compute_undampened_percentile,
    dampen_weight,
    iterate_shuffled_batches,
    percentile,
)
from unlearn.methods.lfssd import LFSSD
from unlearn.methods.potion import Potion
from unlearn.methods.ssd import SSD

pytestmark = pytest.mark.numeric

KINDS: dict[str, type[Dampening]] = {"ssd": SSD, "lfssd": LFSSD, "potion": Potion}


def numbers(values, labels):
    """Return a set whose images are one number each."""
    image = torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    label = torch.tensor(labels)
    return ImageSet(image, label, torch.arange(len(label)), 2, lambda x, _: x.float())


def linear(*weights):
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    net[1].weight.data = torch.tensor(weights).reshape(2, 1)
    return net


def deep(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(3, 2),
    )  # fmt: skip


def measured(net, data, kind, batch_size=512, seed=0):
    measure, power = KINDS[kind].measure, KINDS[kind].power
    return compute_importance(
        net, data, measure=measure, power=power, batch_size=batch_size, seed=seed
    )


def by_hand(kind, w, x, label):
    """Return the importance of one image of a linear map with logits w x."""
    z = [w[0] * x, w[1] * x]
    if kind == "ssd":  # dCE/dw = (p - y) x
        p = math.exp(z[0]) / (math.exp(z[0]) + math.exp(z[1]))
        return [((p - (label == 0)) * x) ** 2, ((1 - p - (label == 1)) * x) ** 2]
    if kind == "lfssd":  # d|z|^2/dw = 2 w x^2
        return [abs(2 * w[0] * x**2), abs(2 * w[1] * x**2)]
    length = math.hypot(*z)  # d|z|/dw = w x^2 / |z|
    return [abs(w[0]) * x**2 / length, abs(w[1]) * x**2 / length]


@pytest.mark.parametrize("kind", KINDS)
def test_importance_of_one_image_by_hand(kind):
    found = measured(linear(0.3, -0.2), numbers([3], [0]), kind)["1.weight"]
    assert found.flatten().tolist() == pytest.approx(by_hand(kind, (0.3, -0.2), 3, 0), rel=1e-5)


def test_assd_measures_as_ssd():
    assert (ASSD.measure, ASSD.power) == (SSD.measure, SSD.power)


@pytest.mark.parametrize("kind", KINDS)
def test_importance_of_single_image_batches_is_their_mean(kind):
    data = numbers([3, 1, 2], [0, 1, 1])
    found = measured(linear(0.3, -0.2), data, kind, batch_size=1)["1.weight"].flatten()
    each = [by_hand(kind, (0.3, -0.2), x, y) for x, y in zip([3, 1, 2], [0, 1, 1], strict=True)]
    assert found.tolist() == pytest.approx(np.mean(each, axis=0).tolist(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [2, 3, 512])
def test_importance_equals_a_naive_loop_over_batches(kind, batch_size):
    data = numbers([3, 1, 2, 7, 250], [0, 1, 1, 0, 1])
    net = deep().eval()
    total = [torch.zeros_like(p) for p in net.parameters()]
    batches = list(iterate_shuffled_batches(data, batch_size, seed=4))
    assert sorted(torch.cat([b.index for b in batches]).tolist()) == [0, 1, 2, 3, 4]
    for batch in batches:
        net.zero_grad()
        logits = net(batch.image)
        if kind == "ssd":
            F.cross_entropy(logits, batch.label).backward()
        else:
            lengths = [sum(v**2 for v in row) for row in logits]
            (sum(v if kind == "lfssd" else v**0.5 for v in lengths) / len(logits)).backward()
        for sum_, p in zip(total, net.parameters(), strict=True):
            sum_ += p.grad**2 if kind == "ssd" else p.grad.abs()
    found = measured(deep(), data, kind, batch_size, seed=4)
    assert list(found) == [name for name, _ in net.named_parameters()]
    for value, sum_ in zip(found.values(), total, strict=True):
        torch.testing.assert_close(value, sum_ / len(batches), rtol=1e-4, atol=1e-6)


def test_batches_mix_what_is_stored_class_by_class():
    data = numbers(list(range(40)), [0] * 20 + [1] * 20)
    assert all(0 < b.label.float().mean() < 1 for b in iterate_shuffled_batches(data, 10, seed=0))
    one, two = ([b.index for b in iterate_shuffled_batches(data, 10, seed=s)] for s in (0, 1))
    assert not torch.equal(torch.cat(one), torch.cat(two))


@pytest.mark.parametrize("kind", KINDS)
def test_importance_leaves_the_model_alone(kind):
    net = deep().train()
    nn.init.constant_(net[1].bias, 0.25)
    first = net[0].weight
    first.grad = torch.ones_like(first)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    data = numbers([3, 1, 2, 7], [0, 1, 1, 0])
    one, two = measured(net, data, kind), measured(net, data, kind)
    assert all(torch.equal(one[k], two[k]) for k in one)  # no dropout: eval mode
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert net.training and net[1].training and net[3].training
    assert torch.equal(first.grad, torch.ones_like(first))


@pytest.mark.parametrize("kind", ["lfssd", "potion"])
def test_label_free_importance_knows_no_label(kind):
    one = measured(deep(), numbers([3, 1, 2, 7], [0, 1, 1, 0]), kind, 2)
    two = measured(deep(), numbers([3, 1, 2, 7], [1, 0, 1, 1]), kind, 2)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert measured(deep(), numbers([3], [0]), "ssd")["5.bias"].tolist() != pytest.approx(
        measured(deep(), numbers([3], [1]), "ssd")["5.bias"].tolist()
    )


def test_unused_and_frozen_weights():
    net = linear(0.3, -0.2)
    idle = nn.Parameter(torch.ones(2))
    net.register_parameter("unused", idle)
    found = measured(net, numbers([3], [0]), "ssd")
    assert found["unused"].tolist() == [0, 0]
    idle.requires_grad_(False)
    assert list(measured(net, numbers([3], [0]), "ssd")) == ["1.weight"]


def test_zero_logits_have_a_finite_importance():
    found = measured(linear(0.0, 0.0), numbers([3], [0]), "potion")["1.weight"]
    assert found.flatten().tolist() == [0, 0]


@pytest.mark.parametrize(
    ("forget", "retain", "expected"),
    [
        (5.0, 1.0, 2.0),  # 5 is not above 10 x 1: as it was
        (10.0, 1.0, 2.0),  # nor is 10
        (20.0, 1.0, 2.0 * 3 * 1 / 20),
        (20.0, 0.0, 0.0),  # matters to the forget set alone
        (0.0, 0.0, 2.0),  # 0/0 is never selected
        (0.0, 1.0, 2.0),
    ],
)
def test_dampening_by_hand(forget, retain, expected):
    weight, f, r = (torch.tensor([v]) for v in (2.0, forget, retain))
    found = dampen_weight(weight, f, r, alpha=10.0, lambda_=3.0).item()
    assert found == pytest.approx(expected)
    assert dampen_weight(-weight, f, r, alpha=10.0, lambda_=3.0).item() == -found


def test_dampening_never_enlarges():
    weight, f, r = torch.randn(1000), torch.rand(1000), torch.rand(1000)
    out = dampen_weight(weight, f, r, alpha=0.5, lambda_=100.0)
    assert (out.abs() <= weight.abs()).all()
    out = dampen_weight(weight, f, r, alpha=0.5, lambda_=1.0)
    assert (out.abs() <= weight.abs()).all()
    selected = f > 0.5 * r
    assert torch.equal(out[~selected], weight[~selected])
    assert (out[f > r].abs() < weight[f > r].abs()).all()


def test_ratios_leave_out_what_cannot_be_compared():
    forget = {"a": torch.tensor([[0.0, 6.0], [1.0, 4.0]]), "b": torch.tensor([float("nan"), 1.0])}
    retain = {"a": torch.tensor([[0.0, 2.0], [0.0, 4.0]]), "b": torch.tensor([1.0, 2.0])}
    assert compute_sorted_ratios(forget, retain).tolist() == [0.5, 1.0, 3.0]


@pytest.mark.parametrize("percent", [0, 12.3, 50, 98.9, 99.99, 100])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_percentile_interpolates_linearly(percent, size):
    values = torch.rand(size, generator=torch.Generator().manual_seed(size))
    found = percentile(values.sort().values, percent)
    assert found == pytest.approx(np.percentile(values.numpy().astype(float), percent), rel=1e-6)


def test_percentile_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no weight matters to both"):
        percentile(torch.tensor([]), 50)


def test_kept_percent_as_in_the_paper():
    assert compute_undampened_percentile(0.02) == pytest.approx(98.90, abs=0.005)
    assert compute_undampened_percentile(0.0) == 100
    assert compute_undampened_percentile(float("inf")) == 0  # a search that has gone on for long
