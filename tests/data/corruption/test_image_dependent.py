"""Noise between random and regular: by the pixels, a part of a class, a patch, a table of labels."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unlearn.config.identity import compute_run_id
from unlearn.core.types import ImageSet
from unlearn.data.corruption.instance_dependent import (
    InstanceDependent,
    draw_projected_labels,
    find_hard_labels,
)
from unlearn.data.corruption.noisy_labels import NoisyLabels
from unlearn.data.corruption.spurious_patch import SpuriousPatch
from unlearn.data.corruption.subclass import Subclass, project_on_first_direction
from unlearn.data.datasets.normalization import Normalize


def ladder(n: int = 60) -> ImageSet:
    """Return images of two classes whose one feature, brightness, grows with the index."""
    level = torch.arange(n, dtype=torch.uint8) * 4
    image = level[:, None, None, None].expand(n, 1, 4, 4).contiguous()
    label = (torch.arange(n) >= n // 2).long()
    return ImageSet(image, label, torch.arange(n), 2, Normalize([0.5], [0.25]))


@pytest.mark.parametrize("made", [InstanceDependent(rule="part"), InstanceDependent(rule="hard")])
def test_exactly_the_chosen_samples_get_a_wrong_label(made, clean):
    train, truth = made(clean[0], count=31, seed=0)
    on = truth.corrupted
    assert int(on.sum()) == 31
    assert (train.label[on] != truth.clean_label[on]).all()
    assert torch.equal(train.label[~on], clean[0].label[~on])
    assert torch.equal(truth.clean_label, clean[0].label)
    assert train.image is clean[0].image and train.view is clean[0].view
    assert torch.equal(made(clean[0], count=31, seed=0)[0].label, train.label)


def test_equal_images_of_one_class_get_one_label_if_the_projection_is_sharp():
    """Pixels far from 0 make the softmax a maximum: the image alone decides, not the draw."""
    image = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    image[20:] = 255
    view = Normalize([0.5], [0.001])
    data = ImageSet(image, torch.zeros(40, dtype=torch.long), torch.arange(40), 5, view)
    wrong = draw_projected_labels(data, torch.arange(40), torch.Generator().manual_seed(0))
    assert len(wrong[:20].unique()) == len(wrong[20:].unique()) == 1
    assert wrong[0] != wrong[20]  # the two images are opposite
    assert 0 not in wrong
    other = draw_projected_labels(data, torch.arange(40), torch.Generator().manual_seed(1))
    assert not torch.equal(other, wrong)


def test_the_hard_rule_takes_the_samples_at_the_border_of_two_classes():
    chosen, wrong = find_hard_labels(ladder(), 6)
    assert chosen.tolist() == [27, 28, 29, 30, 31, 32]
    assert wrong.tolist() == [1, 1, 1, 0, 0, 0]


def test_a_subclass_is_one_end_of_its_class(clean):
    ends = set()
    for seed in range(8):
        train, truth = Subclass(source_class=1, wrong_class=0)(ladder(), count=5, seed=seed)
        chosen = truth.corrupted.nonzero().flatten().tolist()
        ends.add(tuple(chosen))
        assert (train.label[truth.corrupted] == 0).all()
        assert torch.equal(train.label[~truth.corrupted], ladder().label[~truth.corrupted])
    assert ends == {(30, 31, 32, 33, 34), (55, 56, 57, 58, 59)}
    train, truth = Subclass(source_class=2, wrong_class=0)(clean[0], count=20, seed=0)
    assert (truth.clean_label[truth.corrupted] == 2).all() and int(truth.corrupted.sum()) == 20


def test_the_direction_does_not_depend_on_the_sign_of_an_eigenvector():
    feature = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    place = project_on_first_direction(feature)
    assert place[place.abs().argmax()] > 0
    assert torch.allclose(project_on_first_direction(-feature), -place) or torch.allclose(
        project_on_first_direction(-feature), place
    )


def test_a_subclass_that_is_all_of_its_class_is_refused(clean):
    with pytest.raises(ValueError, match="must differ from source_class, both are 1"):
        Subclass(source_class=1, wrong_class=1)
    with pytest.raises(ValueError, match="corrupted=67 needs more samples than that of class 0"):
        Subclass(source_class=0, wrong_class=1)(clean[0], count=67, seed=0)
    with pytest.raises(ValueError, match=r"wrong_class must be in 0\.\.2, got 3"):
        Subclass(source_class=0, wrong_class=3)(clean[0], count=5, seed=0)


def patch(**options) -> SpuriousPatch:
    given = {"target_class": 0, "patch_size": 3, "corner": "bottom_right", "other_rate": 0.0}
    return SpuriousPatch(**given | options)


def test_the_patch_is_on_a_share_of_each_class_and_labels_stay_right(clean):
    train, truth = patch(other_rate=0.1)(clean[0], count=30, seed=0)
    assert torch.equal(train.label, clean[0].label)
    shown, bare = (d.view(d.image, d.index) for d in (train, clean[0]))
    patched = (shown != bare).flatten(1).any(1)
    own = clean[0].label == 0
    assert torch.equal(patched & own, truth.corrupted) and int(truth.corrupted.sum()) == 30
    assert int((patched & ~own).sum()) == round(0.1 * int((~own).sum()))
    changed = (shown != bare)[patched].any(0).any(0)
    assert not changed[:9].any() and not changed[:, :9].any()
    assert (shown[patched][:, :, 9:, 9:] == clean[0].view(torch.full((1, 1, 1, 1), 255), 0)).all()
    assert truth.healed_rows is not None and not patched[truth.healed_rows].any()


def test_a_share_of_no_others_leaves_the_seeded_draws_as_they_are(clean):
    one, other = (patch(other_rate=rate)(clean[0], count=30, seed=0)[1] for rate in (0.0, 0.1))
    assert torch.equal(one.corrupted, other.corrupted)
    assert torch.equal(one.healed_rows, other.healed_rows)


def test_patches_that_do_not_fit_are_refused(clean):
    with pytest.raises(ValueError, match=r"patch_size must be in 1\.\.12, got 13"):
        patch(patch_size=13)(clean[0], count=5, seed=0)
    with pytest.raises(ValueError, match="corner must be top_left or"):
        patch(corner="middle")
    with pytest.raises(ValueError, match="other_rate=1 needs"):
        patch(other_rate=1)(clean[0], count=30, seed=0)


def write_table(path: Path, data: ImageSet, given: torch.Tensor) -> Path:
    lines = [f"{int(c)},{int(g)}" for c, g in zip(data.label, given, strict=True)]
    path.write_text("\n".join(["clean_label,worse_label", *lines]) + "\n")
    return path


def table(path: Path, **options) -> NoisyLabels:
    given = {"given": "worse_label", "clean": "clean_label", "amount": "file"}
    return NoisyLabels(path=str(path), **given | options)


def test_a_table_gives_its_labels_whatever_corrupted_says(clean, tmp_path):
    given = clean[0].label.clone()
    given[::7] = (given[::7] + 1) % 3
    path = write_table(tmp_path / "human.csv", clean[0], given)
    train, truth = table(path)(clean[0], count=3, seed=0)
    assert torch.equal(train.label, given)
    assert torch.equal(truth.corrupted, given != clean[0].label)
    assert torch.equal(truth.clean_label, clean[0].label)
    some, truth = table(path, amount="corrupted")(clean[0], count=5, seed=0)
    assert int(truth.corrupted.sum()) == 5
    assert torch.equal(some.label[truth.corrupted], given[truth.corrupted])
    assert torch.equal(some.label[~truth.corrupted], clean[0].label[~truth.corrupted])
    with pytest.raises(ValueError, match="cannot corrupt 30 samples, only 29 are eligible"):
        table(path, amount="corrupted")(clean[0], count=30, seed=0)


def test_tables_that_do_not_fit_are_refused_by_line(clean, tmp_path):
    path = write_table(tmp_path / "human.csv", clean[0], clean[0].label)
    with pytest.raises(ValueError, match=r"0 of 200 labels in .* are wrong"):
        table(path)(clean[0], count=5, seed=0)
    with pytest.raises(ValueError, match="no column aggre; it has clean_label, worse_label"):
        table(path, given="aggre")(clean[0], count=5, seed=0)
    with pytest.raises(ValueError, match="has 200 lines, the training set has 100 images"):
        table(path)(clean[0].rows(torch.arange(100)), count=5, seed=0)
    moved = replace(clean[0], label=clean[0].label.roll(1))
    with pytest.raises(ValueError, match=r"image 0: clean_label is \d, the data set's label is"):
        table(path)(moved, count=5, seed=0)
    text = path.read_text().splitlines()
    text[4] = "0,3"
    path.write_text("\n".join(text))
    with pytest.raises(ValueError, match=r"line 5: worse_label must be a class in 0\.\.2, got '3'"):
        table(path)(clean[0], count=5, seed=0)
    with pytest.raises(ValueError, match="cannot read"):
        table(tmp_path / "absent.csv")(clean[0], count=5, seed=0)


def test_a_moved_table_is_the_same_run_and_another_content_is_not(tmp_path):
    ids = []
    for name, text in (("a.csv", "x"), ("b.csv", "x"), ("c.csv", "y")):
        (tmp_path / name).write_text(text)
        ids.append(compute_run_id({"corruption": {"path": str(tmp_path / name)}}))
    assert ids[0] == ids[1] != ids[2]
