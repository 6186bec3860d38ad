"""Label noise that depends on the class: which labels, how many, from which seed."""

import pytest
import torch

from unlearn.data.corruption.asymmetric import Asymmetric


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
