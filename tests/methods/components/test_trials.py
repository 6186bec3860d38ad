"""Trials of candidates: scores without truth, the expected share, successive halving, evidence."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import betabinom

from tests.methods.components.test_removal_floor import make_set
from unlearn.core.types import Request
from unlearn.methods.components.floors import Floors
from unlearn.methods.components.list_estimates import (
    describe_list,
    find_evidence,
    order_candidates,
    rank_arms,
)
from unlearn.methods.components.race import Race
from unlearn.methods.components.trial_scores import (
    ArmScore,
    estimate_healed_rate,
    estimate_precision,
    expect_classes,
    make_interval,
    score_arm,
)
from unlearn.methods.components.trials import Arm, Trial, count_images, prepare_arm

LABEL = torch.tensor([1, 1, 1, 1])


def floors_of(other: list[list[float]], rate: float = 0.0) -> Floors:
    size = len(other)
    return Floors(torch.arange(size), torch.full((size,), rate), torch.tensor(other), 0)


def trial_of(predicted: list[int], *, vote: int = 0, kept: float = 1.0, held=None) -> Trial:
    held = torch.arange(len(predicted)) if held is None else torch.tensor(held)
    shifted = torch.full((len(predicted), 3), 0.05)
    shifted[:, vote] = 0.9
    return Trial(held, torch.tensor(predicted), shifted, kept, images=10, seconds=1.0)


def test_damaged_networks_count_little_in_what_is_expected():
    floors = floors_of([[0.9, 0, 0.1]] * 4)
    good, bad = trial_of([0] * 4, vote=0), trial_of([2] * 4, vote=2)
    assert expect_classes(floors, LABEL, [good, bad]).argmax(1).tolist() == [0] * 4
    alone = expect_classes(floors, LABEL, [bad])
    together = expect_classes(floors, LABEL, [bad, good])
    assert together[0, 0] > alone[0, 0]
    assert expect_classes(floors, LABEL, [bad], [bad]).equal(expect_classes(floors, LABEL, []))


def test_votes_count_for_the_samples_that_a_trial_did_not_see():
    floors = floors_of([[0.4, 0, 0.6]] * 4)
    found = expect_classes(floors, LABEL, [trial_of([0, 0], vote=0, held=[2, 3])])
    assert found.argmax(1).tolist() == [2, 2, 0, 0]


def test_a_score_counts_agreement_and_kept_classes_against_the_original():
    floors = floors_of([[1.0, 0, 0]] * 4)
    expected = expect_classes(floors, LABEL, [])
    data, before = make_set([0] * 4, [1] * 4), LABEL.clone()

    def score(*trials):
        return score_arm(trials, before, expected, data, floors)

    best = score(trial_of([0] * 4))
    assert (best.value, best.kept, best.healed, best.gain, best.held_out) == (1, 1, 1, 1, 4)
    assert best.better and 0 < best.error < 0.2
    assert score(trial_of([0] * 4, kept=0.5)).value == 0.5
    assert score(trial_of([0, 0, 1, 1])).value == 0.5
    assert score(trial_of([0] * 4), trial_of([1] * 4)).healed == 0.5
    assert not score(trial_of([1] * 4)).better  # as the original
    right = score_arm([trial_of([1, 1, 1, 0])], before, expected, data, floors, wrong_labels=False)
    assert right.value == 0.25  # only the given labels count


def test_the_expected_share_counts_agreement_and_chance():
    floors = floors_of([[1.0, 0, 0]] * 4, rate=0.25)
    expected = expect_classes(floors, LABEL, [])
    found = estimate_healed_rate([trial_of([0, 0, 0, 1])], expected, floors, LABEL)
    assert found.healed == pytest.approx(4)  # one keeps its label, as many as by chance
    assert found.held_out == 4
    none = estimate_healed_rate([trial_of([2] * 4)], expected, floors, LABEL)
    assert none.healed == pytest.approx(0)  # another class, but not the expected one
    assert estimate_precision([trial_of([0, 0, 1, 1])], floors, LABEL) == pytest.approx(2 / 3)


def test_the_interval_widens_with_dispersion_and_narrows_with_samples():
    plain = make_interval([15], [20], dispersion=0.0)
    exact = betabinom(100, 15.5, 5.5)  # Jeffreys' posterior, and a hundred further images
    assert plain.low == pytest.approx(exact.ppf(0.05) / 100)
    assert plain.high == pytest.approx(exact.ppf(0.95) / 100)
    wide, more = make_interval([15], [20]), make_interval([15, 15], [20, 20])
    assert wide.high - wide.low > plain.high - plain.low
    assert more.high - more.low < wide.high - wide.low
    for hits in (0, 20):
        edge = make_interval([hits], [20])
        assert 0 <= edge.low < edge.mean < edge.high <= 1
    assert make_interval([20], [20]).high == 1  # none of a hundred may be left


def halve(values, *, costs, budget=100.0):
    """Run a race of arms with fixed scores; return the calls and the race."""
    calls = []

    def run(arm, split):
        calls.append((arm.name, split))
        return Trial(
            torch.arange(2), torch.zeros(2).long(), torch.ones(2, 3), 1.0, costs[arm.name], 1.0
        )

    def score(trials):
        return {
            arm: ArmScore(values[arm.name], 1, 1, 0.1, 0.1, 0.05, 2 * len(own), len(own))
            for arm, own in trials.items()
        }

    race = Race(
        run, score, lambda scores: rank_arms(scores, {}), lambda arm: costs[arm.name], budget
    )
    race.hold([Arm(name) for name in values])
    return calls, race


def test_the_better_half_goes_on():
    values = {"a": 0.2, "b": 0.9, "c": 0.5, "d": 0.1}
    calls, race = halve(values, costs=dict.fromkeys(values, 1.0))
    assert calls[:4] == [(name, 0) for name in values]
    assert calls[4:6] == [("b", 1), ("c", 1)]
    assert calls[6:] == [("b", 2), ("b", 3)]
    assert race.spent == 8


def test_the_budget_leaves_room_for_the_second_half_of_the_first():
    values = {"a": 0.9, "b": 0.5, "c": 0.4}
    calls, race = halve(values, costs={"a": 4.0, "b": 5.0, "c": 1.0}, budget=10.0)
    assert calls == [("a", 0), ("c", 0), ("a", 1)]
    assert race.left_out == ["b"] and race.spent == 9
    calls, race = halve(values, costs={"a": 40.0, "b": 5.0, "c": 1.0}, budget=10.0)
    assert calls == [("a", 0)]  # without any trial nothing could be said


def test_evidence_orders_candidates_and_leaves_out_those_far_below():
    evidence = {"rem": 0.8, "npo": 0.9, "ssd": 0.2}
    assert find_evidence("npo_gentle", evidence) == 0.9 and find_evidence("x", evidence) is None
    assert order_candidates(["rem", "mine", "ssd", "npo"], evidence) == ["npo", "rem", "mine"]
    assert order_candidates(["rem", "ssd"], {}) == ["rem", "ssd"]
    scores = {
        Arm(name): ArmScore(value, 1, value, 0.1, 0.1, 0.05, 8, 1)
        for name, value in (("rem", 0.72), ("npo", 0.70))
    }
    assert rank_arms(scores, {})[0].name == "rem"
    assert rank_arms(scores, evidence)[0].name == "npo"  # as good, and better elsewhere


def test_a_list_is_described_by_its_labels():
    greys = [0, 1, 2, 3] * 5
    for labels, level in (([1] * 8, "high"), ([0, 1, 2, 3] * 2, "low"), ([0, 1] * 4, "medium")):
        forget = make_set([0] * 8, labels, 40)
        request = Request(forget=forget, retain=make_set(greys, greys))
        facts = describe_list(request, floors_of([[1.0, 0, 0]] * 8, 0.5), 0.75)
        assert facts["regularity"] == level and facts["memorized"] == 0.5


def test_an_arm_is_a_copy_with_its_rate_within_its_cost():
    stop = SimpleNamespace(force=False)
    method = SimpleNamespace(
        epochs=10, budget_pass="all", batch_size=4, optimizer=partial(torch.optim.SGD, lr=0.1),
        removal_optimizer=None, stop=stop,
    )  # fmt: skip
    request = Request(forget=make_set([0] * 4, [1] * 4, 40), retain=make_set([0] * 6, [0] * 6))
    assert count_images(method, request) == 100  # type: ignore[arg-type]
    own = prepare_arm(method, Arm("x", 0.5), request, 35)  # type: ignore[arg-type]
    assert own.optimizer.keywords["lr"] == 0.05 and own.epochs == 3 and own.stop.force
    assert method.optimizer.keywords["lr"] == 0.1 and method.epochs == 10 and not stop.force
    assert prepare_arm(method, Arm("x"), request, 1).epochs == 1  # type: ignore[arg-type]
