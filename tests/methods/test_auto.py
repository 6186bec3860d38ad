"""The automatic choice of a method by a held-out half of the forget set."""

import logging

import pytest
import torch

from tests.methods.components.test_removal_floor import CLASSES, make_set, predict
from unlearn.core.errors import CollapsedError
from unlearn.core.types import Request
from unlearn.methods.auto import MIN_LISTED, Auto, hold_out
from unlearn.methods.components.samples import split_positions

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


def choose(request, **candidates):
    original = make_networks()[0]
    method = Auto(candidates=candidates, default=next(iter(candidates)), force=False, seed=0)
    return method, method.unlearn(original, request, None)


def test_the_candidate_that_heals_what_it_did_not_see_is_chosen(caplog):
    _, healed, other = make_networks()
    bad, good, lost = Fixed(other), Fixed(healed), Collapsing(None)
    request = make_request(LISTED)
    with caplog.at_level(logging.INFO):
        method, model = choose(request, bad=bad, good=good, lost=lost)
    assert model is healed
    assert method.notes["chosen"] == "good"
    assert method.notes["score/lost"] == 0 and method.notes["held_out"] == 6
    assert method.notes["score/good"] > method.notes["score/bad"] > 0
    assert method.notes["lost"] == 1 and method.notes["healed"] == pytest.approx(1)
    assert method.notes["good/calls"] == 2
    assert "Of 6 listed samples that it did not see, 100 % lost their listed label" in caplog.text
    trial, final = good.seen
    assert final is request
    assert len(bad.seen) == 1  # only the best unlearns the whole list
    assert len(trial.forget) == 6 and len(trial.retain) == 46
    held = torch.isin(trial.retain.index, request.forget.index)
    assert held.sum() == 6 and (trial.retain.label[held] == 1).all()  # stays, with its listed label


def test_the_original_is_a_candidate(caplog):
    original, _, _ = make_networks()
    dead = predict(dict.fromkeys([*range(CLASSES), *LISTED], 0))
    method = Auto(candidates={"dead": Fixed(dead)}, default="dead", force=False, seed=0)
    assert method.unlearn(original, make_request(LISTED), None) is original
    assert method.notes["chosen"] == "original"
    assert "no candidate is better than the original on 6 listed samples" in caplog.text


def test_a_short_list_is_not_split(caplog):
    _, healed, other = make_networks()
    request = make_request(LISTED[: MIN_LISTED - 1])
    method, model = choose(request, good=Fixed(healed), bad=Fixed(other))
    assert model is healed and method.notes["chosen"] == "good"
    assert "7 listed samples are too few to hold half of them out (at least 8)" in caplog.text


def test_what_was_not_memorized_is_left_alone():
    _, healed, _ = make_networks()
    candidate = Fixed(healed)
    method = Auto(candidates={"one": candidate}, default="one", force=False, seed=0)
    assert method.unlearn(healed, make_request(LISTED), None) is healed
    assert method.notes["nothing_to_unlearn"] is True and candidate.seen == []
    forced = Auto(candidates={"one": candidate}, default="one", force=True, seed=0)
    forced.unlearn(healed, make_request(LISTED), None)
    assert len(candidate.seen) >= 1


def test_halves_cover_the_list_and_depend_on_the_seed():
    given, held = split_positions(11, 3)
    assert (len(given), len(held)) == (5, 6)
    assert torch.cat([given, held]).sort().values.equal(torch.arange(11))
    assert not split_positions(99, 0)[0].equal(split_positions(99, 1)[0])
    half = hold_out(make_request(LISTED), *split_positions(12, 0))
    assert half.retain.index.equal(half.retain.index.sort().values)


def test_the_default_is_a_candidate():
    with pytest.raises(ValueError, match=r"method.default must be one of the candidates a, got b"):
        Auto(candidates={"a": Fixed(None)}, default="b", force=False, seed=0)
