"""Forget sets without corruption: how many, which, and what is refused."""

import json

import pytest
import torch
from torch import nn

from unlearn.core.types import ImageSet, Request
from unlearn.data.corruption.random_label import RandomLabel
from unlearn.data.datasets.normalization import Normalize
from unlearn.data.forget_sets.by_entanglement import Entangled
from unlearn.data.forget_sets.by_score import FromFile, Graded
from unlearn.data.forget_sets.uniform import OfClass, Random, count_forget
from unlearn.data.task import Truth
from unlearn.scoring.memorization.partition import ByScore
from unlearn.scoring.score_groups import GROUPS

LABEL = torch.arange(60) % 3
TRUTH = Truth(clean_label=LABEL, corrupted=torch.zeros(60).bool())
SCORE = torch.linspace(0, 1, 60)
GIVEN = {"rate": 0.5, "seed": 0}


def mixed(score=SCORE, **options):
    usual: dict = {"group": "mix", "size": 9, "center": None, "tie_seed": 0, "num_requests": 1}
    usual["shared_requests"] = True
    return Graded(**usual | options)(TRUTH, **GIVEN, score=score, center=0.5)


def test_counts():
    assert count_forget(0.1, 60) == 6
    assert count_forget(0.1, 100, 3) == 9
    assert count_forget(12, 60, 3) == 12
    for size, multiple in ((10, 3), (60, 1), (0.001, 1)):
        with pytest.raises(ValueError, match=r"forget_set.size must give 1..59"):
            count_forget(size, 60, multiple)


def test_random_requests_share_nothing_and_follow_the_seed():
    make = Random(size=0.2, num_requests=3)
    parts = make(TRUTH, **GIVEN)
    assert [len(p) for p in parts] == [12, 12, 12]
    assert len(torch.cat(parts).unique()) == 36
    assert all(torch.equal(p, p.sort().values) for p in parts)
    assert torch.equal(parts[0], make(TRUTH, **GIVEN)[0])
    assert not torch.equal(parts[0], make(TRUTH, rate=0.5, seed=1)[0])
    with pytest.raises(ValueError, match="leave none of 60"):
        Random(size=0.2, num_requests=5)(TRUTH, **GIVEN)


def test_a_random_set_meets_a_corruption_of_the_same_seed_by_chance_alone():
    big = torch.arange(600) % 3
    image = torch.zeros(600, 1, 2, 2).byte()
    data = ImageSet(image, big, torch.arange(600), 3, Normalize((0.5,), (0.25,)))
    _, truth = RandomLabel()(data, count=60, seed=0)
    (part,) = Random(size=60, num_requests=1)(truth, **GIVEN)
    assert truth.corrupted[part].sum() < 20  # 6 are expected; all 60 with one order for both
    clean = Truth(clean_label=big, corrupted=torch.zeros(600).bool())
    (before,) = Random(size=60, num_requests=1)(clean, **GIVEN)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    assert before.tolist() == order[:60].sort().values.tolist()  # as older rows have it


def test_classes_in_whole_and_in_part():
    (whole,) = OfClass(classes=[1], size=None)(TRUTH, **GIVEN)
    assert whole.tolist() == list(range(1, 60, 3))
    (part,) = OfClass(classes=[0, 1], size=7)(TRUTH, **GIVEN)
    assert len(part) == 7
    assert set(LABEL[part].tolist()) <= {0, 1}
    with pytest.raises(ValueError, match=r"classes of the data, got \[5\]"):
        OfClass(classes=[5], size=None)(TRUTH, **GIVEN)
    with pytest.raises(ValueError, match="these classes have only 20"):
        OfClass(classes=[1], size=30)(TRUTH, **GIVEN)


def test_grades_of_a_score():
    (low,), (mid,), (high,) = (mixed(group=g, size=4) for g in ("low", "mid", "high"))
    assert low.tolist() == [0, 1, 2, 3]
    assert mid.tolist() == [28, 29, 30, 31]
    assert high.tolist() == [56, 57, 58, 59]
    (mix,) = mixed()
    assert len(mix) == 9
    assert mix[:3].tolist() == [0, 1, 2]
    assert mix[-3:].tolist() == [57, 58, 59]
    (elsewhere,) = mixed(group="mid", size=3, center=0.0)
    assert elsewhere.tolist() == [0, 1, 2]


def test_refining_a_mix_gives_back_what_it_was_mixed_of():
    score = torch.rand(60, generator=torch.Generator().manual_seed(3))
    (mix,) = mixed(score=score, size=9)
    rest = torch.arange(60)[~torch.isin(torch.arange(60), mix)]
    view = Normalize((0.5,), (0.25,))
    image = torch.zeros(60, 1, 2, 2).byte()
    data = ImageSet(image, LABEL, torch.arange(60), num_classes=3, view=view)
    request = Request(data.rows(mix), data.rows(rest), {"score": score})
    parts = ByScore(names=GROUPS, record="score", tie_seed=0)(nn.Identity(), request)
    alone = {group: mixed(group=group, size=3, score=score)[0] for group in GROUPS}
    assert {name: mix[rows].tolist() for name, rows in parts.items()} == {
        name: rows.tolist() for name, rows in alone.items()
    }


def test_later_requests_come_from_what_is_left():
    first, second = mixed(num_requests=2, size=6)
    assert first.tolist() == [0, 1, 29, 30, 58, 59]
    assert second.tolist() == [2, 3, 28, 31, 56, 57]


def test_requests_that_follow_the_current_model_are_asked_for_one_by_one():
    make = Graded(
        group="mix", size=6, center=None, tie_seed=0, num_requests=2, shared_requests=False
    )
    (first,) = make(TRUTH, **GIVEN, score=SCORE, center=0.5)
    assert first.tolist() == [0, 1, 29, 30, 58, 59]
    assert make.notes["kind"] == "graded anew"
    assert make.choose_next(SCORE, 0.5, first).tolist() == [2, 3, 28, 31, 56, 57]
    second = make.choose_next(SCORE.roll(10), 0.5, first)  # 10 is now the lowest
    assert not set(second.tolist()) & set(first.tolist())
    assert {10, 11} < set(second.tolist())
    for shared in (True, False):
        with pytest.raises(ValueError, match="num_requests=10 of 6 samples leave none of 60"):
            mixed(size=6, num_requests=10, shared_requests=shared)


def test_the_grade_is_by_the_score_not_by_its_sign():
    with pytest.raises(ValueError, match="low, mid, high or mix, got medium"):
        mixed(group="medium")


def test_entanglement_rises_with_the_group():
    g = torch.Generator().manual_seed(0)
    phi = torch.randn(60, 3, generator=g)
    phi[:20] += 3
    means = {}
    for group in ("low", "mid", "high"):
        make = Entangled(group=group, size=None, num_groups=6, pick=None)
        (rows,) = make(TRUTH, **GIVEN, embedding=phi)
        assert len(rows) == 10
        scores = make.notes["entanglements"]
        means[group] = scores[make.notes["picked"][("low", "mid", "high").index(group)]]
    assert means["low"] < means["mid"] < means["high"]
    make = Entangled(group="low", size=4, num_groups=6, pick=[5, 3, 1])
    make(TRUTH, **GIVEN, embedding=phi)
    assert make.notes["picked"] == [5, 3, 1]
    (mix,) = Entangled(group="mix", size=9, num_groups=6, pick=None)(TRUTH, **GIVEN, embedding=phi)
    assert len(mix.unique()) == 9
    with pytest.raises(ValueError, match="three of 6 groups"):
        Entangled(group="low", size=None, num_groups=6, pick=[0, 1, 6])


@pytest.mark.parametrize(
    ("content", "expected"), [([3, 1, 2], [[1, 2, 3]]), ([[9], [5, 4]], [[9], [4, 5]])]
)
def test_files_hold_one_request_or_several(tmp_path, content, expected):
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(content))
    found = FromFile(path=str(path))(TRUTH, **GIVEN)
    assert [f.tolist() for f in found] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [("[60]", "0..59"), ("[1, 1]", "twice"), ("[]", "0..59"), ("x", "JSON"), ("[0.5]", "JSON")],
)
def test_bad_files_are_refused(tmp_path, content, message):
    path = tmp_path / "ids.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        FromFile(path=str(path))(TRUTH, **GIVEN)
