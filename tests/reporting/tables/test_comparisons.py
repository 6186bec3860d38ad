import math
from collections.abc import Callable

import pandas as pd
import pytest

from unlearn.reporting.tables import comparisons

Frame = Callable[..., pd.DataFrame]


@pytest.fixture
def plane(frame: Frame) -> pd.DataFrame:
    """Three methods on two tasks and two seeds, one cell of "c" absent."""
    scores = {
        "a": {("poison", 0.1): (0.2, 0.4), ("random_label", 1.0): (0.9, 0.9)},
        "b": {("poison", 0.1): (0.6, 0.4), ("random_label", 1.0): (0.9, 0.7)},
        "retrain": {("poison", 0.1): (0.1, 0.1), ("random_label", 1.0): (1.0, 1.0)},
    }
    cost = {"a": 1.0, "b": 4.0, "retrain": 2.0}
    return frame(*(
        (m, c, d, seed, "ok", value, 1.0, cost[m] * (1 + seed))
        for m, tasks in scores.items() for (c, d), values in tasks.items()
        for seed, value in enumerate(values)
    ))  # fmt: skip


def test_ranks_are_of_seed_means_within_each_task(plane: pd.DataFrame):
    # poison 0.1: b 0.5, a 0.3, retrain 0.1; random label 1.0: retrain 1, a 0.9, b 0.8
    ranks = comparisons.mean_ranks(plane).to_dict()
    assert ranks == {"a": 2.0, "b": 2.0, "retrain": 2.0}
    plane.loc[
        (plane["method"] == "b") & (plane["corruption"] == "random_label"), "healed_utility"
    ] = 0.9
    assert comparisons.mean_ranks(plane).to_dict() == {"a": 2.25, "b": 1.75, "retrain": 2.0}


def test_ranks_use_only_tasks_that_all_have(plane: pd.DataFrame):
    gone = plane[~((plane["method"] == "a") & (plane["corruption"] == "poison"))]
    assert comparisons.mean_ranks(gone).to_dict() == {"a": 2.0, "b": 3.0, "retrain": 1.0}
    assert comparisons.missing_cells(gone).to_dict() == {"a": 2, "b": 0, "retrain": 0}
    alone = gone[~((gone["method"] == "b") & (gone["corruption"] == "random_label"))]
    assert all(map(math.isnan, comparisons.mean_ranks(alone)))


def test_a_collapse_ranks_last_and_a_failure_is_missing(plane: pd.DataFrame):
    lost = (plane["method"] == "b") & (plane["corruption"] == "poison")
    plane.loc[lost, ["healed", "healed_utility"]] = None
    fails = comparisons.missing_cells(plane.assign(status="failed"))
    assert fails["b"] == 2
    plane.loc[lost, "status"] = "collapsed"
    assert comparisons.mean_ranks(plane)["b"] == 3.0
    assert comparisons.missing_cells(plane)["b"] == 0
    assert comparisons.worst_cells(plane).loc["b", "worst"] == 0


def test_the_worst_cell_is_a_mean_over_seeds(plane: pd.DataFrame):
    worst = comparisons.worst_cells(plane)
    assert worst["worst"].to_dict() == pytest.approx({"a": 0.3, "b": 0.5, "retrain": 0.1})
    assert worst.loc["a", "worst_cell"] == "poison 0.1"
    plane["corruption"] = "interclass_confusion"
    assert comparisons.worst_cells(plane).loc["a", "worst_cell"] == "interclass 0.1"


def test_time_is_relative_to_retraining_on_the_same_cell(plane: pd.DataFrame):
    assert comparisons.relative_time(plane).to_dict() == {"a": 0.5, "b": 2.0, "retrain": 1.0}
    etd = plane.replace({"retrain": "retrain(etd)", "b": "b(etd)"})
    assert comparisons.relative_time(etd)["a"] == 0.5  # no reference of its own
    both = pd.concat([plane, etd.assign(seconds=etd["seconds"] * 3)])
    times = comparisons.relative_time(both[both["method"] != "a"])
    assert times["b"] == 2.0 and times["b(etd)"] == 2.0
    assert comparisons.relative_time(plane[plane["method"] != "retrain"]).isna().all()


def test_regions_by_hand(plane: pd.DataFrame):
    table = comparisons.compare_regions(plane)
    assert table["method"].tolist() == ["b", "a", "retrain"]
    b = table.iloc[0]
    assert b["n"] == 4 and b["high"] == pytest.approx(0.5) and b["low"] == pytest.approx(0.8)
    assert b["high_sem"] == pytest.approx(0.1) and "medium" not in table and "rate_mid" not in table
    assert b["rate_low"] == pytest.approx(0.5) and b["rate_high"] == pytest.approx(0.8)
    # seeds: means 0.75 and 0.55
    assert b["seed_error"] == pytest.approx(0.1)
    other = comparisons.compare_regions(plane.replace({"poison": "stripes"}))
    assert other.loc[0, "stripes"] == pytest.approx(0.5) and "high" not in other


def test_holm_by_hand():
    # sorted .01 .02 .04 .5: times 4, 3, 2, 1: .04 .06 .08 .5
    assert comparisons.holm_correction([0.04, 0.01, 0.5, 0.02]) == pytest.approx(
        [0.08, 0.04, 0.5, 0.06]
    )
    # .03 * 2 = .06, then .031 * 1 = .031 is raised to .06; NaN is no test
    assert comparisons.holm_correction([0.031, math.nan, 0.03])[::2] == pytest.approx([0.06, 0.06])
    assert (
        comparisons.holm_correction([0.9, 0.8]) == [1.0, 1.0]
        and comparisons.holm_correction([]) == []
    )


def test_wilcoxon_by_hand():
    # five gaps of one sign: two of the 2 ** 5 sign patterns are as extreme
    assert comparisons.paired_p(pd.Series([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 / 32)
    # ranks 1 2 3, one negative of rank 1: patterns with a rank sum of at most 1: 2, both sides: 4 of 8
    assert comparisons.paired_p(pd.Series([-0.1, 0.2, 0.3])) == pytest.approx(0.5)
    assert comparisons.paired_p(pd.Series([0.0, 0.0])) == 1.0
    assert math.isnan(comparisons.paired_p(pd.Series([0.1])))
    assert 0 < comparisons.paired_p(pd.Series([0.1, 0.1, 0.0, -0.1, 0.2])) < 1


def test_the_best_is_tested_against_each_on_their_common_cells(plane: pd.DataFrame):
    table = comparisons.compare_with_best(plane)
    assert set(table["best"]) == {"b"} and table["method"].tolist() == ["a", "retrain"]
    assert table["n"].tolist() == [4, 4]
    # b - a: 0.4, 0, 0, -0.2
    assert table["difference"].tolist() == pytest.approx([0.05, 0.1])
    assert table["p_holm"].tolist() == comparisons.holm_correction(list(table["p"]))
    assert table["significant"].tolist() == ["no", "no"]
    gone = plane.drop(index=plane.index[2])  # a, random label, seed 0
    assert comparisons.compare_with_best(gone).set_index("method")["n"].to_dict()["a"] == 3


def test_the_best_is_chosen_on_cells_that_all_have(plane: pd.DataFrame):
    easy = plane[~((plane["method"] == "retrain") & (plane["corruption"] == "poison"))]
    hard = easy[~((easy["method"] == "b") & (easy["corruption"] == "random_label"))]
    assert comparisons.best_method(easy) == "retrain"
    assert comparisons.best_method(hard) == "retrain"  # nothing in common: own means
    assert comparisons.best_method(plane) == "b"
    assert comparisons.best_method(plane.replace({"b": "b (IDEAL)"})) == "a"


def test_a_clear_winner_is_significant(frame: Frame):
    cells = [("a", 0.9), ("b", 0.5)]
    rows = frame(*(
        (m, "poison", 0.5, s, "ok", v + s / 1000 * (m == "a"), 1.0, 1.0)
        for m, v in cells for s in range(6)
    ))  # fmt: skip
    table = comparisons.compare_with_best(rows)
    assert table["significant"].tolist() == ["yes"] and table["p"][0] == pytest.approx(2 / 64)


def test_one_method_has_nobody_to_be_compared_with(plane: pd.DataFrame):
    assert comparisons.compare_with_best(plane[plane["method"] == "a"]).empty


def test_mixtures_are_counted(plane: pd.DataFrame):
    assert comparisons.count_settings(plane) == 1 and comparisons.count_repeats(plane) == 0
    mixed = pd.concat(
        [plane.assign(dataset="x"), plane.assign(dataset="y"), plane.assign(dataset="y")]
    )
    assert comparisons.count_settings(mixed) == 2 and comparisons.count_repeats(mixed) == len(plane)
