from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from unlearn.reporting.figures import catalog
from unlearn.reporting.pages.run_folders import read_curves
from unlearn.storage.results_store import ResultsStore

Frame = Callable[..., pd.DataFrame]
COLUMNS = "epoch,base/hidden_accuracy_given,full/hidden_accuracy_given\n"


@pytest.fixture
def curves() -> pd.DataFrame:
    values = {"epoch": [0, 1], catalog.CURVES[1]: [0.9, 0.1], catalog.CURVES[2]: [0.9, 0.9]}
    return pd.DataFrame(values).assign(run_id="r", corruption="poison")


def test_auto_follows_the_rows(rows: pd.DataFrame, curves: pd.DataFrame):
    one = rows[rows["discovery"] == 0.5]
    plane = ("heatmap", "winners", "tradeoff", "worst")
    assert catalog.choose_figures("auto", one, None) == ("comparison",)
    assert catalog.choose_figures("auto", one, curves) == ("comparison", "redirection")
    assert catalog.choose_figures("auto", rows, None) == plane
    assert catalog.choose_figures("all", one, curves) == ("comparison", *plane, "redirection")
    assert catalog.choose_figures("none", rows, curves) == ()
    assert catalog.choose_figures("winners", rows, None) == ("winners",)
    with pytest.raises(ValueError, match=r"figure must be one of comparison, .*, none, got pie"):
        catalog.choose_figures("pie", rows, None)


def test_every_name_draws(rows: pd.DataFrame, curves: pd.DataFrame):
    made = catalog.draw_figures("all", rows, curves)
    heat = ["heatmap", "heatmap_rem", "heatmap_npo_fast"]
    assert list(made) == ["comparison", *heat, "winners", "tradeoff", "worst", "redirection"]
    with pytest.raises(ValueError, match="figure=redirection needs curves of a REM run"):
        catalog.draw_figures("redirection", rows, None)


def test_the_schema_allows_the_same_names():
    from unlearn.config.constraints import RULES

    assert RULES["figure"][1] == "one of " + ", ".join(catalog.NAMES)


def test_curves_are_of_all_runs_of_the_best_method_that_has_both_networks(
    frame: Frame, tmp_path: Path
):
    store = ResultsStore(tmp_path)
    rows = frame(*(
        (m, "poison", 0.5, s, "ok", v, 1.0, 1.0)
        for m, v in (("best", 0.9), ("rem", 0.8), ("rem(etd)", 0.7)) for s in (0, 1)
    )).assign(run_id=["best-0", "best-1", "plain-0", "plain-1", "etd-00", "etd-01"])  # fmt: skip
    for run in ("plain-0", "plain-1", "etd-00"):
        (tmp_path / run / "curves").mkdir(parents=True)
        (tmp_path / run / "curves/metrics.csv").write_text(f"{COLUMNS}0,0.9,0.9\n")
    (tmp_path / "best-0/curves").mkdir(parents=True)
    (tmp_path / "best-0/curves/metrics.csv").write_text("epoch,train/loss\n0,1\n")
    found = catalog.redirection_curves(store, rows)
    assert found is not None and found["run_id"].tolist() == ["plain-0", "plain-1"]
    assert set(found["corruption"]) == {"poison"}
    assert catalog.redirection_curves(store, rows[rows["method"] == "best"]) is None


@pytest.mark.parametrize(
    "content", [b"", b"\x80\0\xff,\n", b'epoch,"train', b"epoch,train/loss\n0,1\n1,low\n"]
)
def test_broken_curves_are_named_and_left_out(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "a-run-1" / "curves" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    end = catalog.curve_end(ResultsStore(tmp_path), "a-run-1", "train/loss", "last")
    assert end != end  # NaN
    read_curves(path)  # of the page
    assert caplog.messages and all(str(path) in line for line in caplog.messages)
    assert not any("\n" in line for line in caplog.messages)
