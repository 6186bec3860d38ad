"""Rows of detectors: a table of their own, no place on the plane, no cell in common."""

import pandas as pd
import pytest

from unlearn.reporting.figures.catalog import choose_figures
from unlearn.reporting.tables.comparisons import count_repeats, worst_cells
from unlearn.reporting.tables.detectors import tabulate_detectors
from unlearn.reporting.tables.frames import on_plane, prepare_rows


@pytest.fixture
def found(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows at a rate, and those of two detectors, each without a rate."""
    one = rows[rows["discovery"] == 0.5].assign(
        discovery=None, **{"discovery/by": "loss", "discovery/precision": 0.25}
    )
    other = one.assign(**{"discovery/by": "cleanlab"}, healed_utility=0.0)
    other.loc[other["seed"] == 1, "discovery/precision"] = 0.75
    return prepare_rows(
        pd.concat([rows.astype({"discovery": object}), one, other], ignore_index=True)
    )


def test_a_row_per_detector_and_a_column_per_method(found: pd.DataFrame):
    table = tabulate_detectors(found).set_index("detector")
    assert list(table.index) == ["cleanlab", "loss"]
    assert list(table.columns) == ["corruption", "n", "precision", "rem", "npo_fast"]
    assert table.loc["cleanlab", "precision"] == 0.5
    assert table.loc["loss", "rem"] == pytest.approx((0.4 + 0.9) / 2)
    assert table.loc["loss", "npo_fast"] == pytest.approx(0.3)
    assert table.loc["cleanlab", "rem"] == 0


def test_without_detectors_there_is_no_table(rows: pd.DataFrame):
    assert tabulate_detectors(rows).empty


def test_detectors_share_no_cell_and_have_no_place_on_the_plane(found: pd.DataFrame):
    assert count_repeats(found) == 0
    assert len(on_plane(found)) == 8
    assert worst_cells(found).loc["rem", "worst_cell"] == "poison cleanlab"
    alone = found[found["discovery/by"] == "loss"]
    assert on_plane(alone).empty
    assert choose_figures("auto", alone, None) == ("comparison",)
    assert "heatmap" in choose_figures("auto", found, None)
