"""Triggers by hand, which samples carry them, and what the evaluation gets to see."""

import copy
import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_class

from unlearn.config.registration import config_dir
from unlearn.core.types import ImageSet
from unlearn.data.corruption.several_triggers import SeveralTriggers
from unlearn.data.corruption.triggers import apply_change
from unlearn.data.datasets.normalization import Normalize
from unlearn.data.forget_sets.discovered import Discovered
from unlearn.data.task import Task

DIRTY = ("blended", "noise_pattern", "low_frequency", "wanet")
CLEAN_LABEL = ("sig", "label_consistent")


def make(name, **options):
    content = yaml.safe_load((Path(config_dir()) / "corruption" / f"{name}.yaml").read_text())
    return get_class(content.pop("_target_"))(**content | options)


def pixels(data: ImageSet) -> torch.Tensor:
    """Return the images as the network gets them, as 8-bit pixels."""
    view = data.view(data.image, data.index)
    return ((view * 0.25 + 0.5) * 255).round().long()


def flat(level: int, size: int = 12, channels: int = 1, n: int = 60) -> ImageSet:
    """Return images of one grey level."""
    image = torch.full((n, channels, size, size), level, dtype=torch.uint8)
    view = Normalize([0.5] * channels, [0.25] * channels)
    return ImageSet(image, torch.arange(n) % 3, torch.arange(n), 3, view)


@pytest.mark.parametrize("name", [*DIRTY, *CLEAN_LABEL])
def test_exactly_the_corrupted_samples_change_and_the_clean_view_undoes_it(name, clean):
    train, before = clean[0], clean[0].image.clone()
    made = make(name, **({"cover": 0} if name == "wanet" else {}))
    spoilt, truth = made(train, count=30, seed=1)
    on = truth.corrupted
    assert on.sum() == 30
    assert spoilt.image is train.image and torch.equal(train.image, before)
    assert torch.equal(spoilt.label[~on], train.label[~on])
    assert torch.equal(pixels(spoilt)[~on], pixels(train)[~on])
    changed = (pixels(spoilt) != pixels(train)).flatten(1).any(1)
    assert torch.equal(changed, on)
    assert truth.clean_view is not None
    bare = replace(spoilt, view=truth.clean_view)
    assert torch.equal(next(bare.batches(200)).image, next(train.batches(200)).image)
    if name in DIRTY:
        assert (spoilt.label[on] == 0).all()
        assert truth.healed_rows is None
    else:
        assert torch.equal(spoilt.label, train.label)
        assert (train.label[on] == 0).all()


@pytest.mark.parametrize("name", [*DIRTY, *CLEAN_LABEL])
def test_the_seed_decides_and_copies_are_equal(name, clean):
    one, again, other = (make(name)(clean[0], count=20, seed=s)[0] for s in (3, 3, 4))
    image = one.view(one.image, one.index)
    assert torch.equal(image, again.view(again.image, again.index))
    assert not torch.equal(image, other.view(other.image, other.index))
    packed = pickle.loads(pickle.dumps(one.view))
    assert torch.equal(image, packed(one.image, one.index))
    part = torch.tensor([5, 0, 17])
    assert torch.equal(image[part], one.view(one.image[part], part))


@pytest.mark.parametrize("name", [*DIRTY, "sig"])
def test_the_test_images_get_the_bits_of_the_training_images(name, clean):
    train, truth = make(name)(clean[0], count=30, seed=0)
    on = truth.corrupted
    assert truth.trigger is not None and truth.clean_view is not None
    plain = truth.clean_view(train.image, train.index)
    kept = plain.clone()
    stamped = truth.trigger.stamp_trigger(plain)
    assert torch.equal(plain, kept)
    assert torch.equal(stamped[on], train.view(train.image, train.index)[on])
    assert stamped.abs().max() <= 2 + 1e-5  # pixels of [0, 1], normalised


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("blended", {"strength": 0}),
        ("noise_pattern", {"amplitude": 0}),
        ("low_frequency", {"amplitude": 0}),
        ("wanet", {"strength": 0, "cover": 0}),
        ("sig", {"amplitude": 0}),
    ],
)
def test_a_trigger_of_no_strength_changes_nothing(name, off, clean):
    spoilt, _ = make(name, **off)(clean[0], count=30, seed=0)
    assert torch.equal(pixels(spoilt), pixels(clean[0]))


def test_blended_mixes_one_noise_image_into_all():
    data = flat(200, channels=2)
    train, truth = make("blended", strength=0.25)(data, count=10, seed=0)
    shown = pixels(train)[truth.corrupted]
    assert (shown == shown[0]).all()
    assert 150 <= shown.min() < 160 and 205 < shown.max() <= 214  # 0.75 * 200 + 0.25 * 0..255
    assert not torch.equal(shown[0, 0], shown[0, 1])


def test_sig_is_a_sine_of_the_column():
    train, truth = make("sig", amplitude=0.2, frequency=3)(flat(100, channels=3), count=10, seed=0)
    row = [round(100 + 51 * math.sin(2 * math.pi * 3 * j / 12)) for j in range(12)]
    assert row[:4] == [100, 151, 100, 49]
    shown = pixels(train)[truth.corrupted]
    assert (shown == torch.tensor(row)).all()


def test_sig_scales_its_cycles_with_the_width_and_refuses_a_pattern_of_zeros():
    train, truth = make("sig")(flat(100, size=32), count=5, seed=0)
    shown = pixels(train)[truth.corrupted][0, 0, 0]
    assert shown[0] == 100 and shown.max() == 140 and shown.min() == 60
    assert torch.equal(shown[:16], shown[16:])  # six cycles over 32 pixels
    with pytest.raises(
        ValueError, match="frequency=6 is zero at every column of images of width 12"
    ):
        make("sig", frequency=6)(flat(100), count=5, seed=0)


def test_noise_and_smooth_patterns_keep_to_their_amplitude():
    data = flat(100, size=16)
    train, truth = make("noise_pattern", amplitude=0.1)(data, count=5, seed=0)
    change = pixels(train)[truth.corrupted] - 100
    assert change.abs().max() <= 26 and change.min() < -20 and change.max() > 20
    train, truth = make("low_frequency")(data, count=5, seed=0)
    change = pixels(train)[truth.corrupted][0, 0] - 100
    assert (change.min(), change.max()) == (0, 51)
    assert (change[1:] - change[:-1]).abs().max() < 40
    bound = [change.float().diff(dim=d).abs().mean() for d in (0, 1)]
    rough = change.flatten()[torch.randperm(256, generator=torch.Generator().manual_seed(0))]
    assert max(bound) < rough.float().diff().abs().mean() / 2


def test_a_warp_moves_pixels_by_the_field_and_never_a_flat_image(clean):
    train, truth = make("wanet", cover=0)(flat(77), count=10, seed=0)
    assert (pixels(train) == 77).all()
    data = flat(0, size=32)
    ramp = torch.arange(32, dtype=torch.uint8) * 8
    data = replace(data, image=(data.image + ramp).contiguous())
    train, truth = make("wanet", cover=0, strength=0.5)(data, count=10, seed=0)
    moved = (pixels(train)[truth.corrupted][0, 0] - ramp.long()).abs() / 8  # columns, in pixels
    assert 0.1 < moved.float().mean() < 0.4
    assert moved.max() <= 1


def test_cover_samples_keep_their_label_are_not_corrupted_and_differ(clean):
    train, truth = make("wanet", cover=2.0, strength=2.0)(clean[0], count=20, seed=0)
    plain, truth_plain = make("wanet", cover=0, strength=2.0)(clean[0], count=20, seed=0)
    assert torch.equal(truth.corrupted, truth_plain.corrupted)
    changed = (pixels(train) != pixels(clean[0])).flatten(1).any(1)
    cover = changed & ~truth.corrupted
    assert cover.sum() == 40
    assert torch.equal(train.label[cover], clean[0].label[cover])
    assert torch.equal(pixels(train)[truth.corrupted], pixels(plain)[truth.corrupted])
    assert truth.trigger is not None
    stamped = truth.trigger.stamp_trigger(clean[0].view(clean[0].image, clean[0].index))
    own = train.view(train.image, train.index)
    assert not torch.equal(stamped[cover], own[cover])
    with pytest.raises(ValueError, match="cover=10 needs 200 samples that are not corrupted"):
        make("wanet", cover=10)(clean[0], count=20, seed=0)


def test_label_consistent_mixes_and_marks_corners_and_tests_get_the_corners_alone():
    data = flat(100)
    data.image[data.label != 0] = 200
    train, truth = make("label_consistent", mix=0.25)(data, count=10, seed=0)
    shown = pixels(train)[truth.corrupted][:, 0]
    board = torch.tensor([[255, 0, 255], [0, 255, 0], [255, 0, 255]])
    for part in (shown[:, :3, :3], shown[:, -3:, :3], shown[:, :3, -3:], shown[:, -3:, -3:]):
        assert (part == board).all()
    assert (shown[:, 3:-3] == 125).all()  # 0.75 * 100 + 0.25 * 200
    assert truth.trigger is not None
    tested = truth.trigger.stamp_trigger(data.view(data.image, data.index))
    tested = ((tested * 0.25 + 0.5) * 255).round()[:, 0]
    assert (tested[:, :3, :3] == board).all()
    assert torch.equal(tested[:, 3:-3], data.image[:, 0, 3:-3].float())
    with pytest.raises(ValueError, match="at least 6 x 6 pixels, got 5 x 5"):
        make("label_consistent")(flat(1, size=5), count=5, seed=0)


@pytest.mark.parametrize("name", CLEAN_LABEL)
def test_clean_label_attacks_are_healed_on_other_samples_with_the_trigger(name, clean):
    train, truth = make(name)(clean[0], count=30, seed=0)
    rows = truth.healed_rows
    assert rows is not None and truth.trigger is not None
    assert len(rows) == 30 and (rows[1:] > rows[:-1]).all()
    assert not truth.corrupted[rows].any() and (truth.clean_label[rows] != 0).all()
    found = Discovered(nested=True)(truth, rate=0.5, seed=0)
    task = Task(train, clean[1], truth, found)
    held, right = task.healed_set()
    assert torch.equal(right, clean[0].label[rows])
    plain = clean[0].view(clean[0].image[rows], rows)
    assert torch.equal(held.view(held.image, held.index), truth.trigger.stamp_trigger(plain))
    received = task.request().get_all_samples()
    assert torch.equal(received.view(received.image[rows], rows), plain)  # a method sees them plain
    with pytest.raises(ValueError, match="at most 60 samples, 90% of the 67 of class 0, got 61"):
        make(name)(clean[0], count=61, seed=0)


def test_of_other_corruptions_the_corrupted_samples_are_healed(clean):
    train, truth = make("blended")(clean[0], count=30, seed=0)
    held, right = Task(train, clean[1], truth, ()).healed_set()
    assert torch.equal(held.index, truth.corrupted.nonzero().flatten())
    assert torch.equal(right, clean[0].label[truth.corrupted])


@pytest.mark.parametrize("name", DIRTY)
def test_all_to_all_turns_each_class_into_the_next(name, clean):
    made = make(name, mapping="all_to_all", target_class=1)
    train, truth = made(clean[0], count=30, seed=0)
    on = truth.corrupted
    assert torch.equal(train.label[on], (clean[0].label[on] + 1) % 3)
    assert truth.target_class is None and truth.all_to_all
    assert set(train.label[on].tolist()) == {0, 1, 2}


def test_the_target_class_can_be_spared(clean):
    _train, truth = make("blended", exclude_target_class=True)(clean[0], count=60, seed=0)
    assert (truth.clean_label[truth.corrupted] != 0).all()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("blended", {"strength": 1.5}, r"strength must be in \[0, 1\], got 1.5"),
        ("blended", {"mapping": "any"}, "mapping must be all_to_one or all_to_all, got any"),
        ("blended", {"target_class": 3}, r"target_class must be in 0..2, got 3"),
        ("sig", {"target_class": -1}, r"target_class must be in 0..2, got -1"),
        ("sig", {"frequency": 0}, "frequency must be at least 1, got 0"),
        ("low_frequency", {"num_frequencies": 1}, "num_frequencies must be at least 2, got 1"),
        ("low_frequency", {"num_frequencies": 13}, "num_frequencies must be at most 12, got 13"),
        ("wanet", {"grid_size": 1}, "grid_size must be at least 2, got 1"),
        ("wanet", {"cover": -1}, r"cover must be in \[0, 100\], got -1"),
        ("label_consistent", {"mix": True}, r"mix must be in \[0, 1\], got True"),
    ],
)
def test_wrong_options_are_refused(name, options, said, clean):
    with pytest.raises(ValueError, match=said):
        make(name, **options)(clean[0], count=5, seed=0)


def test_a_change_clips_rounds_and_leaves_its_input_alone():
    image = torch.tensor([0, 100, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    before = copy.copy(image)
    out = apply_change(lambda pixel, index: pixel + 0.1, image, torch.zeros(1).long())
    assert out.flatten().tolist() == [26, 126, 255]  # 25.5 is rounded to even
    assert torch.equal(image, before)


def several(**options):
    parts = {"blended": make("blended"), "low_frequency": make("low_frequency")}
    usual = {"target_class": 0, "mapping": "all_to_one", "exclude_target_class": False}
    return SeveralTriggers(**usual | {"triggers": parts} | options)


def test_each_sample_carries_one_of_several_triggers_in_equal_parts(clean):
    train, truth = several()(clean[0], count=30, seed=0)
    chosen = truth.corrupted.nonzero().flatten()
    assert len(chosen) == 30 and (train.label[chosen] == 0).all()
    change = train.view.change
    alone = [apply_change(part, train.image[chosen], chosen) for part in change.changes]
    shown = train.view(train.image[chosen], chosen)
    hits = [
        [torch.equal(image, clean[0].view(one[None], chosen[:1])[0])
         for image, one in zip(shown, part, strict=True)]
        for part in alone
    ]  # fmt: skip
    assert hits[0] == [True, False] * 15 and hits[1] == [False, True] * 15
    rest = ~truth.corrupted
    assert torch.equal(pixels(train)[rest], pixels(clean[0])[rest])


def test_a_test_image_gets_a_trigger_by_its_content_whatever_the_batch(clean):
    _, truth = several()(clean[0], count=30, seed=0)
    image = clean[1].view(clean[1].image, clean[1].index)
    whole = truth.trigger.stamp_trigger(image)
    parts = torch.cat([truth.trigger.stamp_trigger(part) for part in image.split(7)])
    assert torch.equal(whole, parts)
    change = truth.trigger.change
    by = [apply_change(part, clean[1].image, clean[1].index) for part in change.changes]
    stamped = [(whole == clean[1].view(one, clean[1].index)).flatten(1).all(1) for one in by]
    assert (stamped[0] ^ stamped[1]).all() and stamped[0].any() and stamped[1].any()


def test_one_trigger_is_not_several():
    with pytest.raises(
        ValueError, match=r"triggers must be two attacks or more, got \['blended'\]"
    ):
        several(triggers={"blended": make("blended")})
