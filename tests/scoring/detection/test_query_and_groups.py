"""Detectors that start from an image, compare groups or join two lists, on planted data by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.scoring.detection.test_detectors import CLASSES, mislabelled, subject
from unlearn.core.types import ImageSet
from unlearn.scoring.detection.base import Detector
from unlearn.scoring.detection.delta_influence import (
    DeltaInfluence,
    LastLayerInfluence,
    transform_image,
)
from unlearn.scoring.detection.fused import Fused
from unlearn.scoring.detection.loss import Loss
from unlearn.scoring.detection.scan import Scan, split_class, standardise_scores


def linear_case():
    """Return data of three classes with a planted feature in rows of class 1 labelled 0, and a model."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(CLASSES).repeat_interleave(30)
    image = torch.zeros(90, 1, 4, 4)
    image[torch.arange(90), 0, 0, label] = 200.0
    image += 20 * torch.rand(image.shape, generator=generator)
    planted = torch.arange(30, 40)
    image[planted, 0, 3, 3] = 250.0
    label[planted] = 0
    data = ImageSet(
        image.to(torch.uint8), label, torch.arange(90), CLASSES, lambda x, index: x.float() / 255
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x = data.view(data.image, data.index)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), label).backward()
        optimizer.step()
    return data, planted, model.eval()


def delta(**options) -> DeltaInfluence:
    usual = {"image": None, "num_queries": 20, "tolerance": 2, "same_label": False, "seed": 0}
    return DeltaInfluence(**usual | options)


def asked(data, row, label):
    one = data.rows(torch.tensor([row]))
    return replace(one, label=torch.tensor([label]), index=torch.zeros(1, dtype=torch.long))


def test_the_planted_rows_have_the_largest_influence_on_a_triggered_image():
    data, planted, model = linear_case()
    x = data.view(data.image, data.index)
    with torch.no_grad():
        logits, h = model(x), x.flatten(1)
    influence = LastLayerInfluence(logits, h, data.label)
    score = influence.score_samples(logits[30:31], h[30:31], torch.tensor([0]))[0]
    assert set(score.argsort(descending=True)[:10].tolist()) == set(planted.tolist())
    assert (score[planted] > 0).all()
    same = influence.score_samples(logits[30:31], h[30:31], torch.tensor([0]))[0]
    assert torch.equal(score - same, torch.zeros(90, dtype=torch.double))


def test_influence_is_the_gradient_product_under_the_curvature():
    """For one class pair and equal curvature the score is that of plain gradients by autograd."""
    data, _, model = linear_case()
    x, layer = data.view(data.image, data.index), model[1]
    with torch.no_grad():
        logits = model(x)
    influence = LastLayerInfluence(logits, x.flatten(1), data.label)
    influence.inverse = torch.ones_like(influence.inverse)
    score = influence.score_samples(logits[5:6], x[5:6].flatten(1), torch.tensor([2]))[0]

    def gradient(value):
        parts = torch.autograd.grad(value, list(layer.parameters()))
        return torch.cat([part.flatten() for part in parts]).double()

    z = model(x[5:6])[0]
    own = gradient(-(z[2] - torch.logsumexp(z[:2], 0)))
    for row in (0, 33, 70):
        loss = nn.functional.cross_entropy(model(x[row : row + 1]), data.label[row : row + 1])
        assert score[row].item() == pytest.approx(float(own @ gradient(loss)), rel=1e-4)


def test_delta_influence_finds_the_planted_rows_from_one_image():
    data, planted, model = linear_case()
    case = replace(subject(), data=data, model=lambda: model, test=data, query=asked(data, 30, 0))
    made = delta(same_label=True)
    found = made(case)
    hit = len({*planted.tolist()} & {*found.tolist()}) / len(planted)
    rest = (len(found) - hit * len(planted)) / (len(data) - len(planted))
    assert hit >= 0.7 > 0.3 > rest
    assert (data.label[found] == 0).all()
    every = delta()(case)
    assert set(found.tolist()) == {i for i in every.tolist() if data.label[i] == 0}
    assert made.notes["same_label"] == len(found)
    assert torch.equal(delta(same_label=True)(case), found)


def test_a_looser_tolerance_flags_no_less():
    data, _, model = linear_case()
    case = replace(subject(), data=data, model=lambda: model, test=data, query=asked(data, 30, 0))
    sizes = [len(delta(tolerance=t)(case)) for t in (0, 5, 19)]
    assert sizes == sorted(sizes)
    with pytest.raises(ValueError, match=r"tolerance must be in 0\.\.19, below"):
        delta(tolerance=20)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 12), (3, 16)])
def test_every_transformation_keeps_shape_and_repeats(channels, size):
    image = torch.randint(0, 256, (1, channels, size, size), dtype=torch.uint8)
    kinds = set()
    for seed in range(40):
        one, again = (transform_image(image, torch.Generator().manual_seed(seed)) for _ in range(2))
        assert one.shape == image.shape and one.dtype == torch.uint8
        assert torch.equal(one, again)
        kinds.add(one.numpy().tobytes())
    assert len(kinds) > 10


def scan(**options) -> Scan:
    return Scan(**{"threshold": 7.39, "cut": "midpoint", "seed": 0} | options)


def six_classes(planted: int):
    """Return features of six classes, some rows of class 2 moved along the last direction."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(6).repeat_interleave(40)
    point = torch.rand(240, 8, generator=generator) * 20 + 100 * torch.eye(6, 8)[label]
    point[80 : 80 + planted, -1] += 100
    view = lambda image, index: image.float()  # noqa: E731
    data = ImageSet(point.to(torch.uint8)[:, None, None], label, torch.arange(240), 6, view)

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 6)

        def forward(self, image):
            return self.head(image.flatten(1))

    return replace(subject(), data=data, model=Head, test=data)


@pytest.mark.parametrize("planted", [8, 20, 30])
@pytest.mark.parametrize("cut", ["midpoint", "gmm"])
def test_scan_flags_the_planted_group_by_the_trusted_set(planted, cut):
    """With a trusted set the flagged group is right even if it is the larger one."""
    case = six_classes(planted)
    clean = torch.cat([torch.arange(c * 40 + 30, c * 40 + 40) for c in range(6)])
    case = replace(case, trusted=case.data.rows(clean))
    made = scan(cut=cut)
    assert made(case).tolist() == list(range(80, 80 + planted))
    assert made.notes["classes"] == [2] and made.notes["score"] > 7.39


def test_scan_without_a_trusted_set_flags_the_smaller_group_and_no_clean_class():
    assert scan()(six_classes(8)).tolist() == list(range(80, 88))
    assert scan()(six_classes(0)).tolist() == []


def test_scores_are_standardised_by_median_and_spread():
    score = torch.tensor([1.0, 2, 3, 4, 100], dtype=torch.double)
    expected = [(s - 3) / 1.4826 for s in score.tolist()]
    assert standardise_scores(score).tolist() == pytest.approx(expected)
    flat = standardise_scores(torch.tensor([1.0, 1, 1, 5], dtype=torch.double))
    assert flat.tolist() == [0, 0, 0, float("inf")]


def test_equal_features_do_not_split():
    _, _, separation = split_class(torch.ones(10, 4, dtype=torch.double), torch.eye(4).double())
    assert separation == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"cut": "half"}, "cut must be midpoint or gmm"), ({"threshold": 0}, "must be above 0")],
)
def test_wrong_options_of_scan(options, message):
    with pytest.raises(ValueError, match=message):
        scan(**options)


class Fixed(Detector):
    def __init__(self, *rows: int) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)

    def __call__(self, subject):
        self.notes["seen"] = True
        return self.rows


def test_two_detectors_are_joined():
    parts = {"a": Fixed(1, 5, 9), "b": Fixed(5, 7)}
    for rule, wanted in (("union", [1, 5, 7, 9]), ("intersection", [5])):
        made = Fused(detectors=parts, rule=rule)
        assert made(subject()).tolist() == wanted
        assert made.notes == {"a/seen": True, "a/size": 3, "b/seen": True, "b/size": 2}
    assert not made.needs_query and not made.uses_trusted and made.make_recorder() is None
    both = Fused(detectors={"a": delta(image=3, seed=4), "b": scan()}, rule="union")
    assert (both.needs_query, both.uses_trusted, both.image, both.seed) == (True, True, 3, 4)


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(ValueError, match="must be two, got"):
        Fused(detectors={"a": Fixed(1)}, rule="union")
    with pytest.raises(ValueError, match="rule must be union or intersection, got xor"):
        Fused(detectors={"a": Fixed(1), "b": Fixed(2)}, rule="xor")


def test_a_list_of_wrong_labels_joins_one_of_outliers():
    label, wrong = mislabelled()
    made = Fused(
        detectors={"loss": Loss(budget=4 / 120, threshold=None), "other": Fixed(0, 3)}, rule="union"
    )
    assert made(subject(label)).tolist() == sorted({*wrong.tolist(), 0, 3})
