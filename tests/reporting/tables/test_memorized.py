"""Cells with nothing to unlearn: marked, listed, left out of means."""

import pandas as pd
import pytest

from unlearn.reporting.tables import formats, memorized, summary


@pytest.fixture
def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Eight rows of poison at two rates, memorized, and the same of random labels, not memorized."""
    other = rows.assign(corruption="random_label", memorized=0.1, ceiling=0.5, healed=0.9)
    other["healed_utility"] = other["healed"] * other["utility"]
    task = rows.assign(memorized=0.9, ceiling=0.95)
    both = pd.concat([task, other], ignore_index=True)
    return both.assign(healed_original=0.1, recovered=(both["healed"] - 0.1) / 0.85)


def test_rows_without_the_measurement_count(rows: pd.DataFrame):
    assert not memorized.has_nothing(rows).any()
    assert memorized.describe_left_out(rows) is None
    assert memorized.tabulate_tasks(rows).empty
    assert not memorized.has_nothing(rows.assign(memorized=None)).any()
    assert "recovered" not in summary.summarize_methods(rows)


def test_the_table_of_tasks(measured: pd.DataFrame):
    table = memorized.tabulate_tasks(measured).set_index("corruption")
    assert table["task"].to_dict() == {"poison": "yes", "random_label": "nothing to unlearn"}
    columns = ["n", "memorized", "ceiling", "memorized_sem"]
    assert table[columns].to_numpy(float)[0].tolist() == [2, 0.9, 0.95, 0.0]


def test_what_is_left_out_is_said_in_the_table(measured: pd.DataFrame):
    line = memorized.describe_left_out(measured)
    assert line is not None
    assert line.startswith("4 cells of random_label left out of means: nothing to unlearn")
    kept = measured[~memorized.has_nothing(measured)]
    table = summary.summarize_methods(kept)
    assert table["n"].tolist() == [4, 4]
    assert list(table.columns).index("recovered") < list(table.columns).index("seconds")
    recovered = dict(zip(table["method"], table["recovered"], strict=True))
    assert recovered["npo_fast"] == pytest.approx((0.4 - 0.1) / 0.85)
    plain = formats.to_markdown(table), formats.to_latex(table)
    table.attrs[formats.NOTE] = line
    assert formats.to_markdown(table) == f"{plain[0]}\n{line}.\n"
    lines = formats.to_latex(table).splitlines()
    assert lines[-2].startswith(r"\multicolumn{") and r"random\_label left out" in lines[-2]
    assert [*lines[:-2], lines[-1]] == plain[1].splitlines()
