"""Agreement of predictions with those of a network that never saw the listed samples."""

import pytest
import torch

from unlearn.methods.components.agreement import drop_listed, rate_predictions

LABEL = torch.zeros(10, dtype=torch.long)
FLOOR = torch.full((10,), 0.3)
SPREAD = torch.tensor([[0.0, 0.3, 0.25, 0.25, 0.2]]).repeat(10, 1)


def rate(*predicted):
    return float(rate_predictions(torch.tensor(predicted), LABEL, FLOOR, SPREAD).mean())


def test_listed_labels_say_nothing_as_often_as_the_floors_allow():
    assert rate(*[0] * 10) == pytest.approx(0.3)  # as the original: not 1, though others are spread
    assert rate(*[0] * 3 + [1] * 7) == pytest.approx(1.0)
    assert rate(*[0] * 6 + [1] * 4) == pytest.approx(0.7)
    assert rate(*[1] * 10) == pytest.approx(1.0)


def test_other_classes_agree_as_far_as_they_are_expected():
    assert rate(*[4] * 10) == pytest.approx(2 / 3)
    assert rate(*[0] * 3 + [1] * 3 + [4] * 4) == pytest.approx((3 + 4 * 2 / 3) / 7)


def test_the_listed_class_is_dropped():
    found = drop_listed(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.9, 0.0]]), torch.tensor([0, 1]))
    assert found.flatten().tolist() == pytest.approx([0, 0.6, 0.4, 1, 0, 0])
