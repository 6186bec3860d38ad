"""The automatic choice of a method by a held-out half of the forget set."""

import logging

import pytest
import torch

from tests.methods.components.test_removal_floor import CLASSES, make_set, predict
from unlearn.core.errors import CollapsedError
from unlearn.core.types import Request
from unlearn.methods.auto import MIN_LISTED, Auto
from unlearn.methods.components.trials import hold_out, split_list

LISTED = list(range(100, 112))


class Fixed:
    """A method that returns a given network, and records what it was given."""

    def __init__(self, network):
        self.network, self.seen = network, []

    def __deepcopy__(self, memo):
        return self  # the records of all copies

    def unlearn(self, model, request, fit):
        self.seen.append(request)
        self.notes = {"calls": len(self.seen)}
        return self.network


class Collapsing(Fixed):
    """A method whose loss is lost."""

    def unlearn(self, model, request, fit):
        raise CollapsedError("NaN")


RIGHT = {c: c for c in range(CLASSES)}


def make_networks():
    """Return the original, which gives listed images of class 0 the label 1, and two that do not."""
    original = predict(RIGHT)
    for grey in LISTED:
        original.table.data[grey] = torch.tensor([0.1, 0.9, 1e-9, 1e-9]).log()
    healed = predict(RIGHT | dict.fromkeys(LISTED, 0))
    other = predict(RIGHT | dict.fromkeys(LISTED, 3))
    return original, healed, other


def make_request(listed):
    greys = [c for c in range(CLASSES) for _ in range(10)]
    return Request(forget=make_set(listed, [1] * len(listed), 40), retain=make_set(greys, greys))


def make_auto(default, **candidates):
    return Auto(
        candidates=candidates, default=default, force=False, seed=0, budget=1.0,
        retraining_epochs=10, factors=(), rates={},
    )  # fmt: skip


def choose(request, **candidates):
    original = make_networks()[0]
    method = make_auto(next(iter(candidates)), **candidates)
    return method, method.unlearn(original, request, None)


def test_the_candidate_that_heals_what_it_did_not_see_is_chosen(caplog):
    _, healed, other = make_networks()
    bad, good, lost = Fixed(other), Fixed(healed), Collapsing(None)
    request = make_request(LISTED)
    with caplog.at_level(logging.INFO):
        method, model = choose(request, bad=bad, good=good, lost=lost)
    notes = method.notes
    assert model is healed
    assert notes["auto/method"] == "good"
    assert notes["auto/tried"].startswith("good 1.00 ± 0.0") and "lost 0.00" in notes["auto/tried"]
    assert notes["auto/score"] == pytest.approx(1) and notes["auto/kept"] == pytest.approx(1)
    assert notes["auto/held_out"] == 24  # four halves of twelve
    assert notes["auto/held_out_healed"] == pytest.approx(24)
    assert notes["auto/healed_low"] < notes["auto/healed"] < notes["auto/healed_high"] <= 1
    assert notes["auto/precision"] == 1
    assert notes["good/calls"] == 5
    assert "Of 100 bad samples that nobody found" in caplog.text
    trial, final = good.seen[0], good.seen[-1]
    assert final is request
    assert all(len(one.forget) == 6 for one in bad.seen)  # only the best unlearns the whole list
    assert len(trial.forget) == 6 and len(trial.retain) == 46
    held = torch.isin(trial.retain.index, request.forget.index)
    assert held.sum() == 6 and (trial.retain.label[held] == 1).all()  # stays, with its listed label


def test_the_original_is_a_candidate(caplog):
    original, _, _ = make_networks()
    dead = predict(dict.fromkeys([*range(CLASSES), *LISTED], 0))
    method = make_auto("dead", dead=Fixed(dead))
    assert method.unlearn(original, make_request(LISTED), None) is original
    assert method.notes["auto/method"] == "original" and method.notes["auto/score"] is None
    assert "no candidate is better than the original" in caplog.text


@pytest.mark.parametrize("collapses", [False, True])
def test_a_candidate_that_fails_with_the_whole_list_is_followed_by_the_next(caplog, collapses):
    _, healed, _ = make_networks()
    dead = predict(dict.fromkeys([*range(CLASSES), *LISTED], 0))

    class Failing(Fixed):
        def unlearn(self, model, request, fit):
            whole = len(request.forget) != 6
            if whole and collapses:
                raise CollapsedError("NaN")
            self.network = dead if whole else healed
            return super().unlearn(model, request, fit)

    second = predict(RIGHT | dict.fromkeys(LISTED[:-2], 0) | dict.fromkeys(LISTED[-2:], 1))
    method, model = choose(make_request(LISTED), first=Failing(None), second=Fixed(second))
    assert model is second and method.notes["auto/method"] == "second"
    assert "first with the whole list leaves a model that is no better" in caplog.text


def test_a_short_list_is_not_split(caplog):
    _, healed, other = make_networks()
    request = make_request(LISTED[: MIN_LISTED - 1])
    method, model = choose(request, good=Fixed(healed), bad=Fixed(other))
    assert model is healed and method.notes["auto/method"] == "good"
    assert "auto/healed" not in method.notes
    assert "nothing can be proved with 7 listed samples (at least 8)" in caplog.text


def test_what_was_not_memorized_is_left_alone():
    _, healed, _ = make_networks()
    candidate = Fixed(healed)
    method = make_auto("one", one=candidate)
    assert method.unlearn(healed, make_request(LISTED), None) is healed
    assert method.notes["nothing_to_unlearn"] is True and candidate.seen == []
    forced = make_auto("one", one=candidate)
    forced.force = True
    forced.unlearn(healed, make_request(LISTED), None)
    assert len(candidate.seen) >= 1


def test_splits_hold_each_sample_out_equally_often():
    first, second = split_list(11, 0, 3), split_list(11, 1, 3)
    assert first[0].equal(second[1]) and first[1].equal(second[0])
    assert torch.cat(first).sort().values.equal(torch.arange(11))
    assert not split_list(99, 0, 3)[0].equal(split_list(99, 2, 3)[0])
    half = hold_out(make_request(LISTED), *split_list(12, 0, 0))
    assert half.retain.index.equal(half.retain.index.sort().values)


def test_finished_trials_are_not_run_again():
    _, healed, other = make_networks()
    kept = {}

    def store(identity, run):
        key = tuple(sorted(identity.items()))
        if key not in kept:
            kept[key] = run()
        return kept[key]

    answers = []
    for _ in range(2):
        good, bad = Fixed(healed), Fixed(other)
        method = make_auto("good", good=good, bad=bad)
        method.store = store
        method.unlearn(make_networks()[0], make_request(LISTED), None)
        seconds = ("auto/seconds", "good/calls", "measured_images")
        notes = {k: v for k, v in method.notes.items() if k not in seconds}
        answers.append((notes, len(good.seen), len(bad.seen)))
    assert answers[0][0] == answers[1][0]
    assert answers[0][1:] == (3, 1) and answers[1][1:] == (1, 0)


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"method.default must be one of the candidates a, got b"):
        make_auto("b", a=Fixed(None))
    with pytest.raises(ValueError, match=r"method.budget must be above 0, got 0"):
        Auto(
            candidates={"a": Fixed(None)}, default="a", force=False, seed=0, budget=0,
            retraining_epochs=1, factors=(), rates={},
        )  # fmt: skip
