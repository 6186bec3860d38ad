"""Label noise that depends on the class: which labels, how many, from which seed."""

import pytest
import torch

from unlearn.core.types import ImageSet
from unlearn.data.corruption.asymmetric import Asymmetric
from unlearn.data.corruption.near_duplicates import NearDuplicates, draw_groups
from unlearn.data.datasets.normalization import Normalize


@pytest.mark.parametrize(
    ("pairs", "counts"), [(None, [11, 10, 10]), ([[2, 0], [0, 1]], [15, 0, 16])]
)
def test_each_source_class_gives_its_share_to_its_one_other_class(pairs, counts, clean):
    train, truth = Asymmetric(pairs=pairs)(clean[0], count=31, seed=0)
    on = truth.corrupted
    given = dict(pairs or [(0, 1), (1, 2), (2, 0)])
    assert torch.bincount(truth.clean_label[on], minlength=3).tolist() == counts
    assert all(given[y] == wrong for y, wrong in zip(
        truth.clean_label[on].tolist(), train.label[on].tolist(), strict=True))  # fmt: skip
    assert torch.equal(train.label[~on], clean[0].label[~on])
    assert torch.equal(truth.clean_label, clean[0].label)
    assert train.image is clean[0].image and train.view is clean[0].view
    assert truth.confused_classes == ()
    again, other = (Asymmetric(pairs=pairs)(clean[0], count=31, seed=s)[1] for s in (0, 1))
    assert torch.equal(again.corrupted, on)
    assert not torch.equal(other.corrupted, on)


@pytest.mark.parametrize("pairs", [[], [[1, 1]], [[0, 1], [0, 2]], [[0, 1, 2]]])
def test_pairs_that_are_none_are_refused(pairs):
    with pytest.raises(ValueError, match="pairs must be pairs of two different classes"):
        Asymmetric(pairs=pairs)


def test_classes_and_counts_that_do_not_fit_are_refused(clean):
    with pytest.raises(ValueError, match=r"pairs must be in 0..2, got 3"):
        Asymmetric(pairs=[[0, 3]])(clean[0], count=5, seed=0)
    with pytest.raises(ValueError, match="corrupted=80 needs 80 samples of class 0, there are 67"):
        Asymmetric(pairs=[[0, 1]])(clean[0], count=80, seed=0)


@pytest.mark.parametrize(("size", "number"), [(1, 30), (4, 8), (30, 1)])
def test_groups_share_one_class_and_one_wrong_label(size, number, clean):
    made = NearDuplicates(group_size=size)
    train, truth = made(clean[0], count=30, seed=0)
    groups = draw_groups(clean[0], size, 30, torch.Generator().manual_seed(0))
    assert [len(group) for group in groups[:-1]] == [size] * (number - 1)
    assert sum(map(len, groups)) == 30
    assert torch.equal(torch.cat(groups).sort().values, truth.corrupted.nonzero().flatten())
    for group in groups:
        assert len(truth.clean_label[group].unique()) == 1
        assert len(train.label[group].unique()) == 1
        assert train.label[group[0]] != truth.clean_label[group[0]]
    on = truth.corrupted
    assert torch.equal(train.label[~on], clean[0].label[~on])
    assert train.image is clean[0].image and train.view is clean[0].view
    assert torch.equal(made(clean[0], count=30, seed=0)[0].label, train.label)
    assert not torch.equal(made(clean[0], count=30, seed=1)[0].label, train.label)


def test_a_group_is_a_sample_and_its_nearest_of_the_class():
    """Brightness is the only feature; the two classes alternate along it."""
    level = torch.arange(40, dtype=torch.uint8) * 5
    image = level[:, None, None, None].expand(40, 1, 20, 20).contiguous()
    view = Normalize([0.5], [0.25])
    data = ImageSet(image, torch.arange(40) % 2, torch.arange(40), 2, view)
    (group,) = draw_groups(data, 5, 5, torch.Generator().manual_seed(0))
    gaps = group.sort().values.diff()
    assert gaps.tolist() == [2, 2, 2, 2]


def test_a_used_up_class_makes_a_smaller_group_and_none_is_refused(clean):
    groups = draw_groups(clean[0], 50, 200, torch.Generator().manual_seed(0))
    assert sorted(map(len, groups)) == [16, 17, 17, 50, 50, 50]
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        NearDuplicates(group_size=0)
