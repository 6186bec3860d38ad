"""What there is to unlearn: facts of a task from the original and a network without corrupted samples."""

import pytest
import torch
from torch import nn

from unlearn.data.corruption.poison import Poison
from unlearn.evaluation.recovery import (
    CorruptedAccuracy,
    compare_with_clean_only,
    compute_recovered,
    measure_corrupted,
)


class AlwaysClass(nn.Module):
    """A network that gives every image the same class."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.number = number

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(image), 3)
        out[:, self.number] = 1
        return out + self.weight


def test_accuracies_are_those_of_a_naive_loop(task):
    found = measure_corrupted(AlwaysClass(1), task)
    rows = task.corrupted_indices.tolist()
    assert found.given == pytest.approx(
        sum(int(task.train.label[i]) == 1 for i in rows) / len(rows)
    )
    true = task.truth.clean_label
    assert found.healed == pytest.approx(sum(int(true[i]) == 1 for i in rows) / len(rows))


def test_facts_and_recovered():
    facts = compare_with_clean_only(CorruptedAccuracy(0.9, 0.05), CorruptedAccuracy(0.1, 0.85))
    assert facts == pytest.approx({"memorized": 0.8, "ceiling": 0.85, "healed_original": 0.05})
    assert compute_recovered(facts, 0.05) == 0.0
    assert compute_recovered(facts, 0.85) == pytest.approx(1.0)
    assert compute_recovered(facts, 0.45) == pytest.approx(0.5)
    assert compute_recovered(facts, None) is None
    assert compute_recovered({}, 0.5) is None
    same = compare_with_clean_only(CorruptedAccuracy(0.1, 0.85), CorruptedAccuracy(0.1, 0.85))
    assert compute_recovered(same, 0.9) is None  # nothing to recover


def test_an_attack_with_right_labels_is_measured_by_its_success(clean):
    """Labels of a clean-label attack are right: accuracy on them says nothing."""
    from dataclasses import replace

    from unlearn.data.task import Task

    train, truth = Poison(
        target_class=0,
        trigger_size=3,
        corner="bottom_right",
        value=None,
        exclude_target_class=False,
    )(clean[0], count=20, seed=0)
    rows = torch.arange(20)
    task = Task(train, clean[1], replace(truth, healed_rows=rows), (rows[:5],))
    assert measure_corrupted(AlwaysClass(0), task).given == 1.0  # every image becomes the target
    assert measure_corrupted(AlwaysClass(1), task).given == 0.0
