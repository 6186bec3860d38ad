"""The floor of removal, the test for something to unlearn, and the score without ground truth."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from unlearn.core.types import ImageSet, Request
from unlearn.data.forget_sets.by_entanglement import Entangled
from unlearn.data.forget_sets.by_score import Graded
from unlearn.data.forget_sets.discovered import Discovered
from unlearn.data.forget_sets.from_file import FromFile
from unlearn.data.forget_sets.uniform import OfClass, Random, UniformForgetSet
from unlearn.methods.components.checkpoint_selection import BestCheckpoint
from unlearn.methods.components.floors import (
    COVERS,
    DRAWS,
    Floors,
    compute_covered_probabilities,
    estimate_floors,
    exceeds_floor,
    get_side,
)
from unlearn.methods.components.healing_score import LEAST, HealingScore
from unlearn.methods.components.removal_stop import RemovalLimits, RemovalStop
from unlearn.methods.gradient_ascent import GradientAscent
from unlearn.methods.neggrad_plus import NegGradPlus
from unlearn.methods.npo import NPO
from unlearn.methods.potion import Potion
from unlearn.methods.rem import REM
from unlearn.models.inference import compute_accuracy
from unlearn.scoring.detection.base import Detector
from unlearn.training.schedules import Constant
from unlearn.training.unlearning import LightningFit

CLASSES = 4


class Table(nn.Module):
    """Predicts the distribution that a table has for the grey value of an image."""

    def __init__(self, rows):
        super().__init__()
        table = torch.full((256, CLASSES), 1.0 / CLASSES)
        for grey, row in rows.items():
            table[grey] = torch.tensor(row, dtype=torch.float32)
        self.table = nn.Parameter(table.clamp(min=1e-9).log())

    def forward(self, image):
        return self.table[(image[:, 0, 4, 4] * 255).round().long()]


def make_set(greys, labels, first=0):
    size = len(greys)
    image = torch.tensor(greys, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 9, 9)
    return ImageSet(
        image=image.clone(), label=torch.tensor(labels), num_classes=CLASSES,
        index=torch.arange(first, first + size), view=lambda image, _: image.float() / 255,
    )  # fmt: skip


@pytest.fixture
def confused():
    """Ten retained images a class; three of class 0 are taken for class 1. Two listed images."""
    rows = {c: torch.eye(CLASSES)[c].tolist() for c in range(CLASSES)}
    rows |= {10: [0.3, 0.6, 0.1, 0.0], 11: [0.0, 0.6, 0.1, 0.3]}  # of class 0; of class 3
    greys = [g for c in range(CLASSES) for g in [c] * 10]
    greys[:3] = [1, 1, 1]
    labels = [c for c in range(CLASSES) for _ in range(10)]
    return Table(rows), Request(
        forget=make_set([10, 11], [1, 1], 40), retain=make_set(greys, labels)
    )


def test_the_floor_is_the_confusion_of_the_likely_true_class_with_the_given_one(confused):
    floors = estimate_floors(*confused)
    assert floors.index.tolist() == [40, 41]
    # No image of class 3 is taken for class 1: what remains is that the label is right by chance.
    assert floors.rate.tolist() == pytest.approx([0.3, 1 / CLASSES])
    assert floors.mean == pytest.approx(0.275)
    assert floors.other[0].tolist() == pytest.approx([0.75, 0, 0.25, 0], abs=1e-6)
    assert floors.images == DRAWS * 42 + COVERS**2 * (2 + 40)
    assert floors.make_table(43).tolist() == pytest.approx([0.0] * 40 + [0.3, 0.25, 0.0])


def test_packed_images_have_the_floors_of_plain_ones(confused):
    model, request = confused

    def pack(data):
        image = data.image.repeat_interleave(
            4, dim=-1
        )  # as float32 pixels are stored: four bytes each
        return replace(data, image=image, view=lambda image, _: image[..., ::4].float() / 255)

    packed = estimate_floors(
        model, replace(request, forget=pack(request.forget), retain=pack(request.retain))
    )
    assert get_side(pack(request.forget)) == get_side(request.forget)
    assert packed.rate.equal(estimate_floors(model, request).rate)


class Gray(nn.Module):
    """Predicts class 2 for an image with a gray pixel, as covered ones have; else class 0, then 1."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([[3.0, 1.0, -5.0], [0.0, 0.0, 10.0]]))

    def forward(self, image):
        gray = ((image > 0.1) & (image < 0.9)).flatten(1).any(1)
        return self.logits[gray.long()]


def test_a_change_that_the_network_does_not_cope_with_says_nothing():
    retain, forget = make_set([0] * 8, [0] * 8), make_set([0, 0], [0, 0], 40)
    forget.image[..., ::2] = retain.image[..., ::2] = 255
    sets = [replace(data, num_classes=3) for data in (forget, retain)]
    floors = estimate_floors(Gray(), Request(*sets))
    assert floors.other.argmax(1).tolist() == [1, 1]  # of covered copies: 2


class Corner(nn.Module):
    """Predicts class 0 for a bright corner, else class 1 for dark images and class 2 for bright ones."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(100.0))

    def forward(self, image):
        corner, mean = image[:, 0, 0, 0], image.mean((1, 2, 3))
        return self.scale * torch.stack([corner * 2 - 1, 0.5 - mean, mean - 0.5], dim=1)


def test_a_covered_trigger_shows_the_true_class():
    data = make_set([20, 120], [0, 0], 40)
    image = data.image.clone()
    image[..., 0, 0] = 255
    shown = compute_covered_probabilities(Corner(), replace(data, image=image, num_classes=3))
    assert shown[:, 0].tolist() == pytest.approx(
        [8 / 9] * 2, abs=1e-3
    )  # one cover of nine hides it
    assert shown[:, 1:].argmax(1).tolist() == [0, 0]


def test_of_right_labels_the_floor_is_the_accuracy_of_their_class(confused):
    model, request = confused
    right = Request(forget=make_set([0, 2], [0, 2], 40), retain=request.retain, wrong_labels=False)
    assert estimate_floors(model, right).rate.tolist() == pytest.approx([0.7, 1.0])


def test_which_forget_sets_have_wrong_labels():
    assert all(kind.wrong_labels for kind in (Discovered, FromFile, Detector))
    assert not any(
        kind.wrong_labels for kind in (Random, OfClass, UniformForgetSet, Graded, Entangled)
    )


@pytest.mark.parametrize(
    ("count", "total", "floor", "expected"),
    [
        (9, 40, 0.19, False),  # P(X >= 9) = 0.35
        (13, 40, 0.19, True),  # P(X >= 13) = 0.03
        (12, 40, 0.19, False),  # P(X >= 12) = 0.07
        (0, 5, 0.0, False),
        (1, 5, 0.0, True),
        (2, 2, 0.2, True),  # 0.04
        (5000, 10_000, 0.2, True),
    ],
)
def test_excess_over_the_floor_is_a_binomial_test(count, total, floor, expected):
    assert exceeds_floor(count, total, floor) is expected


def test_a_sample_at_its_floor_is_not_removed():
    limits = RemovalLimits(torch.tensor([0.5, 0.1]))
    loss = -torch.tensor([0.5, 0.51, 0.11, 0.1]).log()
    kept = limits.select(loss + torch.tensor([1e-4, 0, 0, 1e-4]), torch.tensor([0, 0, 1, 1]))
    assert kept.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("gamma", [-0.1, 1.1, "often"])
def test_gamma_is_an_accuracy_or_auto(gamma):
    with pytest.raises(ValueError, match=r"method.gamma must be in \[0, 1\] or auto, got"):
        RemovalStop(gamma)


RECIPE = {
    "epochs": 2, "batch_size": 16, "schedule": Constant(),
    "optimizer": lambda params: torch.optim.SGD(params, lr=0.5),
}  # fmt: skip
ASCENT = {"select": "last", "select_samples": None, "batch_norm": "eval"}
REDIRECTION = {
    "removal_optimizer": None, "seed": 0, "beta": 1.0, "density": 0.5, "ratio": 1.0,
    "shared_mask": True, "removal_term": True, "removal_batch_size": 8, "max_removal_epochs": 3,
    "reference": "masked", "redirect_loss": "ce", "removal_batch_norm": "eval",
    "batch_norm": "shared", "select": "last", "select_samples": None, "expand": True,
    "ideal": False, "redirect_on": "all", "removal_loss": "npo", "removal_weight": "share",
    "select_original": True,
}  # fmt: skip
METHODS = {
    "npo": lambda **o: NPO(beta=1.0, **RECIPE, **ASCENT, **o),
    "gradient_ascent": lambda **o: GradientAscent(**RECIPE, **ASCENT, **o),
    "neggrad_plus": lambda **o: NegGradPlus(
        beta=0.5, stop=True, forget_batch_size=None, batch_norm="joint", **RECIPE, **o
    ),
    "potion": lambda gamma, **o: Potion(rho=gamma, growth=2.0, tries=3, batch_size=16, seed=0, **o),
    "rem": lambda **o: REM(**RECIPE, **REDIRECTION, **o),
}


@pytest.mark.parametrize("name", METHODS)
def test_where_nothing_was_memorized_the_original_is_returned(name, network, task, engine, caplog):
    request = task.request()
    # Labels that this network does not predict for any of the images.
    logits = network.eval()(next(request.forget.batches()).image)
    label = logits.argmin(1)
    forget = make_labelled(request.forget, label)
    unknown = Request(forget=forget, retain=request.retain)
    with caplog.at_level(logging.WARNING):
        method = METHODS[name](gamma="auto")
        fit = LightningFit(engine, augment=None, seed=0)
        healed = method.unlearn(copy.deepcopy(network), unknown, fit)
    assert method.notes["nothing_to_unlearn"] is True
    assert caplog.text.count("nothing to unlearn: the model gives 0 of 10 listed images") == 1
    for key, value in network.state_dict().items():
        assert healed.state_dict()[key].equal(value), key
    caplog.clear()
    forced = METHODS[name](gamma="auto", force=True)
    other = forced.unlearn(
        copy.deepcopy(network), unknown, LightningFit(engine, augment=None, seed=0)
    )
    assert forced.notes["nothing_to_unlearn"] is False
    assert "nothing to unlearn" not in caplog.text
    assert type(other) is type(network)


def make_labelled(data, label):
    return ImageSet(data.image, label, data.index, data.num_classes, data.view)


@pytest.mark.parametrize("name", METHODS)
def test_what_was_memorized_is_unlearned_to_the_floor(name, resnet, task, engine):
    request = task.request()
    assert compute_accuracy(resnet, request.forget) == 1
    method = METHODS[name](gamma="auto")
    healed = method.unlearn(
        copy.deepcopy(resnet), request, LightningFit(engine, augment=None, seed=0)
    )
    assert method.notes["nothing_to_unlearn"] is False
    assert 0 < method.notes["floor"] < 1
    before = resnet.state_dict()
    assert any(not value.equal(before[key]) for key, value in healed.state_dict().items())


# --- the score ----------------------------------------------------------------------------------


@pytest.fixture
def floors():
    other = torch.tensor([[0.875, 0.0, 0.125, 0.0], [0.0, 0.0, 0.25, 0.75]])
    return Floors(torch.tensor([40, 41]), torch.tensor([0.2, 0.2]), other, 0)


def predict(classes):
    """Return a network that predicts a class for each of some grey values."""
    return Table({grey: torch.eye(CLASSES)[c].tolist() for grey, c in classes.items()})


RIGHT = {c: c for c in range(CLASSES)}


def score_of(request, floors, original, **options):
    return HealingScore(
        original, listed=request.forget, retain=request.retain, floors=floors, **options
    )


def test_a_healed_prediction_is_the_expected_one_not_any_other(confused, floors):
    request = confused[1]
    score = score_of(request, floors, predict(RIGHT))
    found = [score.measure(predict(RIGHT | {10: a, 11: b})) for a, b in ((0, 3), (2, 2), (1, 1))]
    assert [part.kept for part in found] == pytest.approx([1, 1, 1])
    assert [part.healed for part in found] == pytest.approx([1, 0.375 / 1.625, 0.2])
    assert found[1].value == pytest.approx(0.375 / 1.625)


def test_the_loss_of_one_class_does_not_hide_in_the_mean(confused, floors):
    request = confused[1]
    score = score_of(request, floors, predict(RIGHT))
    spread = {grey: c for grey, c in RIGHT.items()}
    dead = score.measure_kept(predict(spread | {3: 0}))
    assert dead == pytest.approx(LEAST ** (1 / CLASSES))  # 0.18, where the mean accuracy is 0.75


def test_classes_count_relative_to_the_original(confused, floors):
    request = confused[1]
    weak = predict(RIGHT | {2: 0})  # the original itself knows nothing of class 2
    score = score_of(request, floors, weak)
    assert score.measure_kept(weak) == pytest.approx(1)
    # Three images of class 0 look like class 1 in every network: an equal loss is none.
    assert score.measure_kept(predict(RIGHT | {1: 0})) < 0.2


def test_of_right_labels_only_memorization_beyond_the_floor_counts(confused, floors):
    request = confused[1]
    score = score_of(request, floors, predict(RIGHT), wrong_labels=False)
    found = [
        score.measure_healed(predict(RIGHT | {10: a, 11: b})) for a, b in ((1, 1), (1, 0), (0, 0))
    ]
    assert found == pytest.approx([0.2, 0.7, 1.0])


def test_the_best_score_is_kept_and_the_original_counts(confused):
    model, request = confused
    best = BestCheckpoint(
        request, mode="score", threshold=0.2, samples=None, images_per_pass=2,
        measure=compute_accuracy,
    )  # fmt: skip
    images = best.start(model, None)
    assert images == DRAWS * 42 + COVERS**2 * (2 + 40) + 40
    assert best.update(model, 1.0, 0) == 2 + 40
    healed = predict({c: c for c in range(CLASSES)} | {10: 0, 11: 3})
    best.update(healed, 0.0, 1)
    assert best.epoch == 1
    dead = predict({c: 0 for c in range(CLASSES)} | {10: 0, 11: 3})
    best.update(dead, 0.0, 2)
    assert best.epoch == 1
    assert best.restore_best_weights(dead) == {"selected_epoch": 1, "converged": True}
    assert dead.table.equal(healed.table)
