"""Where trusted images come from, and who gets them."""

from dataclasses import replace

import pytest
import torch

from unlearn.core.types import select_validation_rows
from unlearn.data.datasets.base import Dataset
from unlearn.data.trusted_sets.audit import Audit
from unlearn.data.trusted_sets.clean_rows import CleanRows
from unlearn.data.trusted_sets.held_out import HeldOut
from unlearn.data.trusted_sets.own import TrustedFolder, TrustedList

DRAW = {"size": 30, "balanced": True, "seed": 0}


@pytest.fixture
def dataset(clean) -> Dataset:
    return Dataset(clean[0], clean[1], ("a", "b", "c"), None)


def drawn(source, task, dataset, held_out=None):
    every = torch.cat(task.forget)
    return source(task.train, task.truth, every, dataset=dataset, held_out=held_out)


def test_clean_rows_are_clean_balanced_and_stay_in_the_retain_set(task, dataset):
    images = drawn(CleanRows(**DRAW), task, dataset).images
    assert len(images) == 30 and images.label.bincount().tolist() == [10, 10, 10]
    assert not task.truth.corrupted[images.index].any()
    assert torch.isin(images.index, task.retain_indices()).all()
    assert torch.equal(images.label, task.truth.clean_label[images.index])
    again = drawn(CleanRows(**DRAW), task, dataset).images
    assert torch.equal(images.index, again.index)
    other = drawn(CleanRows(**(DRAW | {"seed": 1})), task, dataset).images
    assert not torch.equal(images.index, other.index)
    share = drawn(CleanRows(**(DRAW | {"size": 0.05})), task, dataset).images
    assert len(share) == 10


@pytest.mark.parametrize("size", [0, 1.5, 181])
def test_a_size_that_cannot_be_drawn_is_one_line(size, task, dataset):
    with pytest.raises(ValueError, match=r"trusted\.size") as refusal:
        drawn(CleanRows(**(DRAW | {"size": size})), task, dataset)
    assert "\n" not in str(refusal.value)


def test_an_audit_does_not_look_before_it_draws_and_finds_what_is_bad(task, dataset):
    source = Audit(**(DRAW | {"size": 120}), sees="any")
    draw = drawn(source, task, dataset)
    assert len(draw.images) + len(draw.bad) == 120
    assert task.truth.corrupted[draw.bad].all() and len(draw.bad) > 0
    assert not task.truth.corrupted[draw.images.index].any()
    assert draw.notes == {"audit/size": 120, "audit/found": len(draw.bad)}
    assert torch.isin(draw.bad, task.hidden_indices()).all()
    blind = replace(task.truth, corrupted=torch.zeros(200, dtype=torch.bool))
    same = drawn(source, replace(task, truth=blind), dataset)
    both = torch.cat([draw.images.index, draw.bad]).sort().values
    assert torch.equal(same.images.index, both)  # the truth has no part in the draw


def test_an_auditor_who_sees_labels_overlooks_a_trigger_on_a_right_label(task, dataset):
    stamped = task.truth.corrupted.clone()
    stamped[task.retain_indices()] = True  # all labels of the retain set but a few are right
    truth = replace(task.truth, corrupted=stamped)
    wrong = task.truth.clean_label != task.train.label
    labels = drawn(
        Audit(**(DRAW | {"size": 60}), sees="label"), replace(task, truth=truth), dataset
    )
    assert wrong[labels.bad].all() and not wrong[labels.images.index].any()
    with pytest.raises(ValueError, match="all 60 drawn images are bad"):
        drawn(Audit(**(DRAW | {"size": 60}), sees="any"), replace(task, truth=truth), dataset)


def test_held_out_images_are_in_no_training_set(clean, dataset):
    source = HeldOut(**DRAW)
    rest, known = source.hold_out(dataset)
    assert known is not None and len(known) == 30 and len(rest.train) == 170
    assert torch.equal(rest.train.index, torch.arange(170))
    assert torch.equal(known.index, torch.arange(170, 200))
    every = {image.numpy().tobytes() for image in rest.train.image}
    assert not every & {image.numpy().tobytes() for image in known.image}
    with pytest.raises(ValueError, match="held_out"):
        source(clean[0], None, torch.tensor([0]), dataset=dataset, held_out=None)  # type: ignore[arg-type]


def test_a_list_of_verified_images_with_right_labels(task, dataset, tmp_path):
    path = tmp_path / "good.csv"
    free = task.retain_indices()[:3].tolist()
    path.write_text(f"id,label\n{free[0]}\n{free[1]},c\n{free[2]}\n")
    images = drawn(TrustedList(path=str(path)), task, dataset).images
    assert images.index.tolist() == sorted(free) and images.label[free.index(free[1])] == 2
    path.write_text(f"{int(task.forget[0][0])}\n")
    with pytest.raises(ValueError, match=r"trusted\.path: .* lists 1 images of the forget set"):
        drawn(TrustedList(path=str(path)), task, dataset)
    path.write_text("nothing\n")
    with pytest.raises(ValueError, match=r"trusted\.path: .*, line 1: 'nothing' is not an id"):
        drawn(TrustedList(path=str(path)), task, dataset)


def test_a_folder_of_verified_images(task, dataset, tmp_path):
    from PIL import Image

    for name, count in (("a", 2), ("c", 3)):
        (tmp_path / "good" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (12, 12), 40 * i).save(tmp_path / "good" / name / f"{i}.png")
    options = {
        "mean": (0.5,),
        "std": (0.25,),
        "image_size": 12,
        "cache_dir": str(tmp_path / "cache"),
    }
    images = drawn(TrustedFolder(root=str(tmp_path / "good"), **options), task, dataset).images
    assert sorted(images.label.tolist()) == [0, 0, 2, 2, 2]
    assert images.index.tolist() == list(range(200, 205))
    (tmp_path / "good" / "c").rename(tmp_path / "good" / "d")
    with pytest.raises(ValueError, match=r"trusted\.root=.* no classes of the training set: d"):
        drawn(TrustedFolder(root=str(tmp_path / "good"), **options), task, dataset)
    with pytest.raises(ValueError, match=r"trusted\.root must be a folder"):
        drawn(TrustedFolder(root=str(tmp_path / "none"), **options), task, dataset)


def test_only_a_method_that_declares_it_gets_the_trusted_set(task, dataset):
    known = replace(task, trusted=drawn(CleanRows(**DRAW), task, dataset).images)
    plain = known.request()
    assert "trusted" not in vars(plain)
    with pytest.raises(AttributeError, match="it asked for 'trusted' without needs_trusted = True"):
        _ = plain.trusted
    given = known.request(trusted=True)
    assert torch.equal(given.trusted.index, known.trusted.index)
    assert "trusted" not in vars(given.without_trusted())
    with pytest.raises(ValueError, match="there is no trusted set"):
        task.request(trusted=True)


def test_an_image_that_is_to_be_forgotten_is_not_trusted_any_more(task, dataset):
    known = drawn(CleanRows(**DRAW), task, dataset).images
    later = replace(task, trusted=known, forget=(*task.forget, known.index[:4].clone()))
    assert len(later.request(0, trusted=True).trusted) == 30
    second = later.request(1, trusted=True)
    assert torch.equal(second.trusted.index, known.index[4:])


def test_validation_images_are_apart_per_class_or_none():
    label = torch.tensor([0] * 10 + [1] * 25)
    held = select_validation_rows(label)
    assert held is not None
    assert [int(held[label == c].sum()) for c in (0, 1)] == [2, 5]
    assert select_validation_rows(torch.tensor([0] * 3 + [1] * 25)) is None
    assert select_validation_rows(torch.tensor([0] * 4)).sum() == 2  # type: ignore[union-attr]
