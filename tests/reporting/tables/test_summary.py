import math
from collections.abc import Callable

import pandas as pd
import pytest

from unlearn.reporting.tables import formats, frames, summary

Frame = Callable[..., pd.DataFrame]


def test_the_standard_error_by_hand():
    # mean 2.5; squares 2.25 + .25 + .25 + 2.25 = 5; 5 / 3 = 1.6667; root 1.2910; / 2 = 0.6455
    values = pd.Series([1.0, 2.0, 3.0, 4.0])
    assert frames.standard_error(values) == pytest.approx(0.645497, abs=1e-6)
    assert frames.standard_error(pd.Series([1.0, 3.0, math.nan])) == pytest.approx(1.0)
    assert math.isnan(frames.standard_error(pd.Series([1.0])))
    assert math.isnan(frames.standard_error(pd.Series([], dtype=float)))


def test_the_summary_by_hand(rows: pd.DataFrame):
    table = summary.summarize_metrics(rows)
    assert table["method"].tolist() == ["rem", "npo_fast"]
    npo = table.iloc[1]
    assert npo["n"] == 4 and npo["healed"] == pytest.approx(0.4)
    # squares .04 + 0 + .04 + 0 = .08; / 3; root .163299; / 2
    assert npo["healed_sem"] == pytest.approx(0.0816497, abs=1e-6)
    assert npo["seconds"] == 3.0 and npo["utility_sem"] == 0
    # seeds: means of tasks (.2 + .6) / 2 and (.4 + .4) / 2 are alike
    assert npo["healed_utility_seed_sem"] == pytest.approx(0.0)
    rem = table.iloc[0]
    assert rem["healed_utility"] == pytest.approx((0.4 + 0.9 + 1 + 1) / 4)  # products, then mean
    # seeds: 0.7 and 0.95; deviation .25 / sqrt 2; / sqrt 2
    assert rem["healed_utility_seed_sem"] == pytest.approx(0.125)
    assert table["collapsed"].tolist() == table["failed"].tolist() == [0, 0]


def test_the_input_is_left_as_it_was(rows: pd.DataFrame):
    before = rows.copy()
    summary.summarize_metrics(rows)
    summary.average_cells(rows)
    pd.testing.assert_frame_equal(rows, before)


def test_groups_of_two_columns(rows: pd.DataFrame):
    table = summary.summarize_metrics(
        rows, by=("discovery", "method"), metrics=("healed", "healed_utility")
    )
    assert len(table) == 4 and list(table.columns[:3]) == ["discovery", "method", "n"]
    shown = formats.text_table(table)
    assert shown["discovery"].tolist() == ["1", "0.5", "1", "0.5"]


def test_a_collapsed_cell_counts_zero_and_a_failed_one_is_counted(frame: Frame):
    rows = frame(
        ("a", "poison", 0.5, 0, "ok", 0.8, 1.0, 1.0),
        ("a", "poison", 0.5, 1, "collapsed", None, None, 1.0),
        ("a", "poison", 0.5, 2, "failed", None, None, None),
        ("b", "poison", 0.5, 0, "ok", None, None, 1.0),
    )
    rows["failed/headline"] = [None, None, None, "KeyError: 'x'"]
    table = summary.summarize_methods(rows)
    a, b = table.iloc[0], table.iloc[1]
    assert a["n"] == 3 and a["collapsed"] == 1 and a["failed"] == 1
    assert a["healed_utility"] == pytest.approx(0.4) and a["missing"] == 1
    assert b["failed"] == 1 and b["missing"] == 3 and math.isnan(b["healed"])
    assert summary.average_cells(rows).loc["a", ("poison", 0.5)] == pytest.approx(0.4)
    shown = formats.text_table(table)
    assert shown["collapsed"].tolist() == ["1", "0"] and shown["failed"].tolist() == ["1", "1"]
    assert shown["healed"].tolist() == ["0.400 ± 0.400", "-"]
    assert r"\textbf{-}" not in formats.to_latex(table)


def test_nothing_known_at_all(frame: Frame):
    rows = frame(("a", "none", 0.5, 0, "ok", None, 0.5, 1.0)).assign(healed=None)
    rows["healed_utility"] = None
    table = summary.summarize_metrics(rows)
    for text in (formats.to_latex(table), formats.to_markdown(table)):
        assert "nan" not in text.lower() and "None" not in text


def test_groups_without_a_name_are_not_dropped(rows: pd.DataFrame):
    rows["discovery"] = [None] * 4 + [0.5] * 4
    assert summary.summarize_metrics(rows, by=["discovery"])["n"].sum() == 8


def test_no_rows_are_a_clear_error(rows: pd.DataFrame):
    with pytest.raises(ValueError, match="no results to show: 0 rows"):
        summary.summarize_metrics(rows.iloc[:0])
    with pytest.raises(ValueError, match=r"missing columns \['colour'\]"):
        summary.summarize_metrics(rows, by=("colour",))


def test_one_cell_shows_no_error(rows: pd.DataFrame):
    table = summary.summarize_metrics(rows.iloc[[0, 4]])
    for text in (formats.to_latex(table), formats.to_markdown(table), formats.to_csv(table)):
        assert "nan" not in text.lower() and "±" not in text and r"\pm" not in text


def test_cells_have_a_row_per_method(rows: pd.DataFrame):
    table = summary.average_cells(rows, "healed")
    assert table.loc["npo_fast", ("poison", 0.5)] == pytest.approx(0.3)
    assert list(table.columns) == [("poison", 0.5), ("poison", 1.0)]


def test_the_overview_by_hand(rows: pd.DataFrame):
    table = summary.summarize_methods(rows)
    rem, npo = table.iloc[0], table.iloc[1]
    assert (rem["rank"], npo["rank"]) == (1, 2)
    # seed means of rem: poison 0.5 (0.4 + 0.9) / 2, poison 1.0 1.0
    assert rem["worst"] == pytest.approx(0.65) and rem["worst_cell"] == "poison 0.5"
    assert npo["worst"] == pytest.approx(0.3) and math.isnan(rem["time"])
    assert table["missing"].tolist() == [0, 0]
    assert "cells" not in formats.text_table(table) and "seconds" in formats.text_table(table)


def test_time_takes_the_place_of_seconds_and_cells_are_shown_where_they_differ(rows: pd.DataFrame):
    rows = rows.iloc[1:].replace({"npo_fast": "retrain"})
    table = summary.summarize_methods(rows)
    shown = formats.text_table(table)
    assert {"time / retrain", "cells", "missing"} <= set(shown) and "seconds" not in shown
    assert dict(zip(shown["method"], shown["missing"], strict=True)) == {"rem": "0", "retrain": "1"}


def test_the_best_and_the_second_best_are_marked_as_shown():
    table = pd.DataFrame({"healed": [0.9, 0.90004, 0.5, 0.1, math.nan], "rank": [2.0, 1, 1, 4, 5]})
    assert summary.rank_best(table) == {"healed": {0: 1, 1: 1, 2: 2}, "rank": {1: 1, 2: 1, 0: 2}}


def test_an_oracle_wins_nothing(rows: pd.DataFrame):
    table = summary.summarize_methods(rows.replace({"rem": "rem (IDEAL)"}))
    assert table["method"].tolist() == ["rem (IDEAL)", "npo_fast"]
    assert summary.rank_best(table)["healed"] == {1: 1}


def test_one_run_each_shows_its_seconds_beside_the_ratio(rows: pd.DataFrame):
    one = rows.groupby("method").head(1)
    assert {"seconds", "healed_utility"} <= set(
        summary.select_shown(summary.summarize_methods(one))
    )
