"""Grades by score and by entanglement: by hand and in closed form."""

import math

import pytest
import torch

from unlearn.scoring.score_groups import (
    by_distance,
    center_of,
    entanglement_score,
    rank_entanglements,
    select_graded,
    sort_ascending,
)

SCORE = torch.tensor([0.0, 0.9, 0.5, 0.0, 0.45, 1.0, 0.0, 0.7, 0.1])


def test_groups_by_hand():
    sizes = {"low": 2, "mid": 2, "high": 2}
    groups, displaced = select_graded(SCORE, sizes, 0.5)
    assert groups["high"].tolist() == [1, 5]
    assert groups["mid"].tolist() == [2, 4]
    assert set(groups["low"].tolist()) < {0, 3, 6}
    assert displaced == 0
    assert len(torch.cat(list(groups.values())).unique()) == 6
    one, _ = select_graded(SCORE, {"mid": 2}, 0.9)
    assert one["mid"].tolist() == [1, 5]


def test_the_groups_are_disjoint_where_the_score_is_tied():
    score = torch.zeros(9)
    score[8] = 1
    groups, displaced = select_graded(score, {"low": 3, "mid": 3, "high": 3}, 0.0)
    assert sorted(torch.cat(list(groups.values())).tolist()) == list(range(9))
    assert 8 in groups["high"].tolist()
    assert displaced > 0


def test_one_fixed_order_breaks_ties():
    score = torch.zeros(50)
    assert torch.equal(sort_ascending(score), sort_ascending(score + 3))
    assert not torch.equal(sort_ascending(score), torch.arange(50))
    assert not torch.equal(sort_ascending(score), sort_ascending(score, tie_seed=1))


def test_centres():
    assert center_of(SCORE, "median") == pytest.approx(0.45)
    assert center_of(SCORE, "midrange") == 0.5
    assert center_of(SCORE, 0.3) == 0.3
    with pytest.raises(ValueError, match="got middle"):
        center_of(SCORE, "middle")


def test_a_score_must_be_a_number_and_the_groups_must_fit():
    with pytest.raises(ValueError, match="not finite"):
        select_graded(torch.tensor([0.0, math.nan]), {"low": 1}, 0.5)
    with pytest.raises(ValueError, match="cannot choose 10 of 9"):
        select_graded(SCORE, {"low": 5, "high": 5}, 0.5)


def test_entanglement_of_four_points_by_hand():
    phi = torch.tensor([[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]])
    forget, retain = torch.tensor([0, 1]), torch.tensor([2, 3])
    # within: 1 + 1; means (0, 0) and (4, 0), middle (2, 0): between (4 + 4) / 2
    assert entanglement_score(phi, forget, retain) == pytest.approx(0.5)
    moved = 3 * phi @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]]) + 7
    assert entanglement_score(moved, forget, retain) == pytest.approx(0.5, rel=1e-6)
    same = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    assert entanglement_score(same, forget, retain) == math.inf
    with pytest.raises(ValueError, match="exact or midpoint, got mean"):
        entanglement_score(phi, forget, retain, "mean")


def test_entanglement_of_two_gaussians_has_its_closed_form():
    g = torch.Generator().manual_seed(0)
    d, gap, n, m = 8, 3.0, 3_000, 45_000
    phi = torch.randn(m, d, generator=g)
    phi[:n, 0] += gap
    f, r = torch.arange(n), torch.arange(n, m)
    w = n / m
    expected = 2 * d / ((w**2 + (1 - w) ** 2) / 2 * gap**2)
    exact = entanglement_score(phi, f, r)
    assert exact == pytest.approx(expected, rel=0.03)
    assert entanglement_score(phi, f, r, "midpoint") / exact == pytest.approx(1.751, abs=1e-3)


def test_groups_by_distance_are_graded_by_their_entanglement():
    g = torch.Generator().manual_seed(0)
    phi = torch.randn(600, 4, generator=g) @ torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0])) + 1
    phi[:200] += torch.tensor([6.0, 0.0, 0.0, 0.0])
    groups = by_distance(phi, 15, 40)
    distance = (phi - phi.mean(0)).norm(dim=1)
    means = [distance[rows].mean().item() for rows in groups]
    assert means == sorted(means)
    everyone = torch.arange(600)
    scores = [
        entanglement_score(phi, rows, everyone[~torch.isin(everyone, rows)]) for rows in groups
    ]
    of = {name: scores[i] for name, i in rank_entanglements(scores).items()}
    assert of["low"] == min(scores) < of["mid"] < of["high"] == max(scores)
    assert rank_entanglements([1.0, 90.0, 100.0, 9.0, math.inf]) == {"low": 0, "mid": 3, "high": 2}
    with pytest.raises(ValueError, match="hold 40 each; cannot take 41"):
        by_distance(phi, 15, 41)
