"""Facts of rows: the recorded ones count; known names fill in for rows recorded without them."""

import pandas as pd

from unlearn.reporting.tables import comparisons, facts, frames, summary


def rows(**columns: list) -> pd.DataFrame:
    size = len(columns["method"])
    known = {"corruption": ["poison"] * size, "discovery": [0.5] * size, "seed": [0] * size}
    known |= {"dataset": ["digits"] * size, "status": ["ok"] * size, "seconds": [2.0] * size}
    return pd.DataFrame(known | {"healed_utility": [0.5] * size} | columns)


def test_recorded_facts_count_before_names():
    frame = rows(
        method=["retrain", "mine", "original", "rem (IDEAL)", "rem"],
        role=["unlearning", "reference", None, None, "upper bound"],
        corruption=["poison", "mine", "random_label", "other", "poison"],
        regularity=["low", "high", None, None, None],
    )
    assert list(facts.read_fact(frame, "role")) == [
        "unlearning", "reference", "baseline", "upper bound", "upper bound"
    ]  # fmt: skip
    assert facts.labels_of_role(frame, "reference") == {"mine"}
    assert list(facts.is_upper_bound(frame)) == [False, False, False, True, True]
    levels = facts.regularity_levels(frame)
    assert list(levels) == ["mine", "poison", "random_label"] and levels["mine"] == "high"
    assert facts.order_corruptions(["other", "random_label", "mine"], levels) == [
        "mine", "random_label", "other"
    ]  # fmt: skip


def test_a_method_of_ones_own_can_be_reference_and_free_of_the_forget_set():
    frame = rows(
        method=["again", "rem", "rem"], role=["reference", "unlearning", "unlearning"],
        uses_forget_set=[False, True, True], discovery=[0.1, 0.1, 0.5], seconds=[4.0, 1.0, 2.0],
        healed=[1.0, 0.5, 0.5], utility=[1.0, 0.5, 0.5], tow=[1.0, 0.5, 0.5],
    )  # fmt: skip
    frame = frames.spread_rates(frame)
    assert sorted(frame.loc[frame["method"] == "again", "discovery"]) == [0.1, 0.5]
    assert comparisons.relative_time(frame)["rem"] == (1 / 4 + 2 / 4) / 2
    table = summary.summarize_metrics(frame, metrics=("tow", "healed_utility"))
    assert "role" not in summary.select_shown(table)
    best = summary.rank_best(table)["tow"]
    assert [table["method"][i] for i in best] == ["rem"]  # the reference is not ranked by ToW


def test_names_are_shortened_unless_they_then_coincide():
    short = comparisons._shorten_names(["random_label", "random_noise", "interclass_confusion"])
    assert short == {
        "random_label": "random label",
        "random_noise": "random noise",
        "interclass_confusion": "interclass",
    }
