"""Exit codes, and counts that come from other processes."""

import pytest

from unlearn.orchestration.outcomes import JobCounts


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, 0),
        ({"locked": ["a"]}, 3),
        ({"locked": ["a"], "wrong": 1}, 2),
        ({"locked": ["a"], "wrong": 1, "broken": 1}, 1),
    ],
)
def test_the_exit_code_names_the_worst_outcome(counts: dict, expected: int):
    outcomes = JobCounts([[]])
    outcomes.add_counts(counts)
    assert outcomes.exit_code() == expected


def test_counts_move_from_one_process_to_another():
    worker, parent = JobCounts([[], []]), JobCounts([[], []])
    for run_id in ("a", "b"):
        worker.started += 1
        worker.locked.append(run_id)
        parent.add_counts(worker.take_counts())
    assert worker.take_counts() == {"started": 0, "wrong": 0, "broken": 0, "locked": []}
    assert (parent.started, parent.locked) == (2, ["a", "b"])
