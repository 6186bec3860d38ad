"""Tables show methods without and with a trusted set as two blocks, ranked apart."""

import pandas as pd
import pytest

from unlearn.reporting.figures.planes import find_winners
from unlearn.reporting.tables.advice import aggregate_plane
from unlearn.reporting.tables.comparisons import compare_regions, compare_with_best, mean_ranks
from unlearn.reporting.tables.formats import to_latex
from unlearn.reporting.tables.summary import rank_best, summarize_methods
from unlearn.reporting.tables.trusted import BASELINE, find_gap, is_trusted

PRODUCTS = {"anp": 0.95, "ft_trusted": 0.6, "rem": 0.8, "npo": 0.7}


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run_id": f"{method}{seed}{rate}", "step": 0, "method": method, "seed": seed,
            "dataset": "digits", "model": "resnet9", "corrupted": 0.05, "corruption": "poison",
            "pretraining": "standard", "discovery": rate, "status": "ok", "seconds": 1.0,
            "healed": product, "utility": 1.0, "healed_utility": product - 0.01 * seed,
            "role": "unlearning", "uses_forget_set": True, "regularity": "high",
            "access": "trusted" if method in ("anp", "ft_trusted") else "forget+retain",
            "trusted/n": 65 if method in ("anp", "ft_trusted") else None, "revision": None,
        }
        for method, product in PRODUCTS.items()
        for seed in range(3)
        for rate in (0.1, 0.5)
    )  # fmt: skip


def test_methods_with_a_trusted_set_follow_the_others(rows):
    table = summarize_methods(rows)
    assert list(table["method"]) == ["rem", "npo", "anp", "ft_trusted"]
    assert list(table["trusted"]) == [0, 0, 65, 65]
    assert list(table["rank"]) == [1, 2, 1, 2]
    assert mean_ranks(rows).to_dict() == {"rem": 1, "npo": 2, "anp": 1, "ft_trusted": 2}
    assert rank_best(table)["healed"] == {0: 1, 1: 2, 2: 1, 3: 2}
    assert to_latex(table).count("textbf") >= 4
    assert list(compare_regions(rows)["method"]) == ["rem", "npo", "anp", "ft_trusted"]


def test_the_best_of_a_block_is_compared_within_it(rows):
    pairs = compare_with_best(rows)
    assert list(zip(pairs["best"], pairs["method"], strict=True)) == [
        ("rem", "npo"), ("anp", "ft_trusted"),
    ]  # fmt: skip


def test_neither_winners_nor_advice_name_a_method_with_a_trusted_set(rows):
    assert set(find_winners(rows)["winner"]) == {"rem"}
    assert set(aggregate_plane(rows)["method"]) == {"rem", "npo"}


def test_without_such_methods_nothing_changes(rows):
    plain = rows[~is_trusted(rows)]
    assert "trusted" not in summarize_methods(plain)
    assert "trusted" not in compare_regions(plain)
    assert list(summarize_methods(plain)["rank"]) == [1, 2]
    assert find_gap(plain) is None
    assert not is_trusted(plain.drop(columns="access")).any()


def test_a_block_without_its_baseline_is_named(rows):
    assert find_gap(rows) is None
    line = find_gap(rows[rows["method"] != BASELINE])
    assert line is not None and "method=ft_trusted" in line and "\n" not in line
