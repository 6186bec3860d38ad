"""Scores of channels and the spending of a budget, by hand."""

import pytest
import torch

from unlearn.methods.localization.parameter_units import (
    aggregate_channel_scores,
    build_channel_units,
    build_layer_units,
    build_scalar_units,
    count_averaged_entries,
    select_best_units,
)
from unlearn.methods.localization.salloc import gradient_saliency
from unlearn.methods.localization.weighted_gradient import weighted_saliency

WEIGHT = torch.tensor([[1.0, 2, 3], [4, -5, 6]])
GRADIENT = torch.tensor([[0.1, -0.2, 0.1], [0.0, 0.1, 0.05]])
NAMED = {"h": {"frac_of_cout": 0.1}, "how": "top_h_mean", "axis": {}, "tied": {}, "heads": {}}


def shapes(scores):
    return {n: s.shape for n, s in scores.items()}


def test_the_published_example():
    """Two channels of three entries: the two criteria order them oppositely."""
    score = weighted_saliency(WEIGHT, GRADIENT)
    assert torch.allclose(score, torch.tensor([[0.1, 0.4, 0.3], [0, 0.5, 0.3]]))
    for h, expected in ((1, [0.4, 0.5]), (2, [0.35, 0.4]), (3, [0.8 / 3, 0.8 / 3])):
        assert aggregate_channel_scores(score, "top_h_mean", h).tolist() == pytest.approx(expected)
    plain = aggregate_channel_scores(gradient_saliency(GRADIENT), "top_h_mean", 1)
    assert plain.tolist() == pytest.approx([0.2, 0.1])


def test_aggregates_by_hand():
    rows = torch.tensor([[3.0, 4, 0], [1, 1, 1]])
    values = {
        how: aggregate_channel_scores(rows, how, 3).tolist() for how in ("mean", "max", "sum", "l2")
    }
    assert values["max"] == [4, 1] and values["sum"] == [7, 3]
    assert values["mean"] == pytest.approx([7 / 3, 1])
    assert values["l2"] == pytest.approx([5, 3**0.5])


@pytest.mark.parametrize(
    ("channels", "entries", "expected"),
    [(64, 27, 6), (128, 576, 12), (256, 1152, 25), (512, 4608, 51), (10, 512, 1), (3, 9, 1),
     (1024, 8, 8)],
)  # fmt: skip
def test_a_tenth_of_the_channels_is_averaged_and_never_none(channels, entries, expected):
    assert count_averaged_entries({"frac_of_cout": 0.1}, channels, entries) == expected


def test_other_ways_to_say_how_many():
    assert count_averaged_entries("all", 4, 27) == 27
    assert count_averaged_entries(5, 4, 3) == 3
    assert count_averaged_entries({"frac_of_fan_in": 0.5}, 4, 27) == 13
    for bad in (0, 0.5, True, "some", {"frac": 0.1}, {"frac_of_cout": 2}):
        with pytest.raises(ValueError, match="h must be"):
            count_averaged_entries(bad, 4, 27)


def test_exact_cuts_one_unit_and_whole_stops_before_it():
    scores = {"w": torch.tensor([[1.0, 1], [5, 5], [3, 3]]), "b": torch.tensor([4.0, 0, 9])}
    units = build_channel_units(scores, shapes(scores), **NAMED)
    assert units.score.tolist() == [1, 5, 3, 4, 0, 9]
    assert units.size.tolist() == [2, 2, 2, 1, 1, 1]
    whole = select_best_units(
        units, 5, fill="whole"
    )  # 9, 5 (two), 4; then the row of 3s does not fit
    assert whole["w"].int().tolist() == [[0, 0], [1, 1], [0, 0]]
    assert whole["b"].tolist() == [True, False, True]
    exact = select_best_units(units, 5, fill="exact")
    assert exact["w"].int().tolist() == [[0, 0], [1, 1], [1, 0]]
    assert torch.equal(exact["b"], whole["b"])
    skip = select_best_units(units, 5, fill="whole", skip_nonfitting=True)
    assert skip["b"].all() and torch.equal(skip["w"], whole["w"])
    with pytest.raises(ValueError, match="budget of 1 parameters is less than the first unit of 2"):
        select_best_units(
            build_channel_units({"w": scores["w"]}, {"w": (3, 2)}, **NAMED), 1, fill="whole"
        )


def test_ties_go_to_the_first_in_canonical_order():
    scores = {"w": torch.ones(2, 3), "b": torch.ones(2)}
    mask = select_best_units(build_scalar_units(scores, shapes(scores)), 4, fill="exact")
    assert mask["w"].int().tolist() == [[1, 1, 1], [1, 0, 0]] and not mask["b"].any()


def test_tied_entries_follow_their_channel_and_count():
    scores = {"w": torch.tensor([[1.0, 1], [5, 5]]), "b": torch.tensor([9.0, 0])}
    tied = NAMED | {"tied": {"b": "w"}}
    units = build_channel_units(scores, shapes(scores), **tied)
    assert units.score.tolist() == [1, 5] and units.size.tolist() == [3, 3]
    mask = select_best_units(units, 5, fill="whole")
    assert mask["w"].int().tolist() == [[0, 0], [1, 1]] and mask["b"].tolist() == [False, True]


def test_tokens_are_one_unit_unless_another_axis_is_named():
    scores = {"position": torch.tensor([[[1.0, 2], [5, 6], [3, 3]]])}
    one = build_channel_units(scores, shapes(scores), **(NAMED | {"h": "all"}))
    assert one.size.tolist() == [6]
    per_token = build_channel_units(
        scores, shapes(scores), **(NAMED | {"h": "all", "axis": {"position": 1}})
    )
    assert per_token.score.tolist() == [1.5, 5.5, 3] and per_token.size.tolist() == [2, 2, 2]
    mask = select_best_units(per_token, 4, fill="whole")["position"]
    assert mask[0].int().tolist() == [[0, 0], [1, 1], [1, 1]]


def test_the_rows_of_an_attention_head_are_one_unit():
    """Two heads of width 1: rows are q0 q1 k0 k1 v0 v1."""
    scores = {"qkv": torch.tensor([[1.0], [2], [3], [4], [5], [9]]), "out": torch.ones(2, 2)}
    units = build_channel_units(scores, shapes(scores), **(NAMED | {"heads": {"qkv": 2}}))
    assert units.score.tolist() == [3, 5, 1, 1] and units.size.tolist() == [3, 3, 2, 2]
    mask = select_best_units(units, 3, fill="whole")
    assert mask["qkv"].flatten().int().tolist() == [0, 1, 0, 1, 0, 1] and not mask["out"].any()


def test_layers_compete_with_the_mean_of_their_entries():
    scores = {"a": torch.tensor([[1.0, 3]]), "b": torch.tensor([8.0]), "c": torch.tensor(3.5)}
    units = build_layer_units(
        scores, shapes(scores), {"one": ["a", "b"], "two": ["c"], "gone": ["d"]}
    )
    assert units.score.tolist() == [4, 3.5] and units.size.tolist() == [3, 1]
    mask = select_best_units(units, 3, fill="whole")
    assert mask["a"].all() and mask["b"].all() and not mask["c"].any()
    cut = select_best_units(units, 2, fill="exact")
    assert cut["a"].all() and not cut["b"].any()


def test_a_scalar_parameter_is_a_unit():
    scores = {"temperature": torch.tensor(2.0), "w": torch.tensor([[1.0, 1.0]])}
    mask = select_best_units(build_channel_units(scores, shapes(scores), **NAMED), 1, fill="whole")
    assert mask["temperature"].all() and mask["temperature"].ndim == 0 and not mask["w"].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused_by_name(bad):
    scores = {"fine": torch.ones(2), "conv.weight": torch.tensor([[1.0, bad]])}
    for build in (build_scalar_units, lambda s, shape: build_channel_units(s, shape, **NAMED)):
        with pytest.raises(ValueError, match=r"scores of 'conv.weight' are not finite"):
            build(scores, shapes(scores))
