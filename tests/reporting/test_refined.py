"""The table of RUM's variants, its intervals, and the figures."""

import math

import numpy as np
import pandas as pd
import pytest

from unlearn.reporting.formats import to_markdown
from unlearn.reporting.refined import against, half_width, interval, sequence, variants


def rows():
    out = []
    for seed in (0, 1, 2):
        for base, mode, tow in (
            ("finetune", "refined", 0.9), ("finetune", "vanilla", 0.8), ("salun", "shuffle", 0.5),
            ("salun", "meta", 0.95), (None, None, 0.4),
        ):  # fmt: skip
            name = f"rum({base} {mode})" if base else "original"
            out.append(
                {"method": name, "method/mode": mode, "seed": seed, "step": seed % 2,
                 "tow": tow + 0.01 * seed, "mia_gap": 0.1, "tow_mia": tow}
            )  # fmt: skip
    return pd.DataFrame(out)


def test_intervals_by_hand():
    # t(0.975, 2) = 4.302653, s = 0.01
    assert half_width([0.80, 0.81, 0.82]) == pytest.approx(4.302653 * 0.01 / math.sqrt(3))
    assert interval([0.80, 0.81, 0.82]) == "0.810 ± 0.025"
    assert interval([0.5]) == "0.500 ± n/a"
    assert interval([None, math.nan]) == "-"


def test_a_row_per_method_and_variant_the_best_per_part_last():
    table = variants(rows())
    assert list(zip(table["method"], table["variant"], strict=True)) == [
        ("finetune", "vanilla"), ("finetune", "refined"), ("original", "-"), ("salun", "shuffle"),
        ("salun", "meta"),
    ]  # fmt: skip
    assert list(table["n"]) == [3] * 5
    assert table["ToW"][0] == "0.810 ± 0.025"
    assert table["MIA gap"][0] == "0.100 ± 0.000"
    assert "0.810 ± 0.025" in to_markdown(table)
    assert variants(rows().drop(columns="method/mode")).empty


def test_a_sequence_has_a_line_per_method():
    fig = sequence(rows())
    assert [ax.get_ylabel() for ax in fig.axes] == ["ToW", "ToW-MIA"]
    assert len(fig.axes[0].containers) == 5
    with pytest.raises(ValueError, match="several requests"):
        sequence(rows().assign(step=0))


def test_scores_are_drawn_against_the_reference():
    scores = {"memorization": np.linspace(0, 1, 9), "entropy": np.linspace(1, 0, 9)}
    fig = against(scores, "memorization", {"memorization": 1.0, "entropy": -1.0})
    assert [ax.get_title() for ax in fig.axes] == ["entropy (-1.00)"]
