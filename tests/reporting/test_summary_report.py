from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from unlearn.reporting import run_summary, summary_report
from unlearn.scoring.regularity import Regularity
from unlearn.storage.record import RunRecord
from unlearn.storage.results_store import ResultsStore

CURVES = "epoch,base/hidden_accuracy_given,full/hidden_accuracy_given\n0,0.9,0.9\n1,0.1,0.95\n"


def write(
    store: ResultsStore,
    method: str,
    seed: int,
    healed: float | None = None,
    run: str | None = None,
    dataset: str = "digits",
    corruption: str = "poison",
    mode: str | None = None,
    discovery: float = 0.5,
    **metrics: Any,
) -> None:
    store.write(
        RunRecord(
            run_id=run or f"{method}-{seed}-run",
            step=0,
            names={
                "dataset": dataset,
                "corruption": corruption,
                "method": method,
                "model": "resnet9",
            },
            config={"seed": seed, "discovery": discovery, "corrupted": 0.05},
            metrics={
                "healed": healed,
                "utility": 1.0,
                "healed_utility": healed,
                "method/mode": mode,
            }
            | metrics,
            status="ok",
            reason=None,
            seconds=1.0,
            peak_bytes=1,
            versions={},
            revision=None,
            created="",
            role={"original": "baseline", "retrain": "reference"}.get(method, "unlearning"),
        )
    )


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    paths = {"results": str(tmp_path / "results"), "reports": str(tmp_path / "reports")}
    plain = {"where": {}, "by": ["method"], "title": None, "expected": [], "logger": {}}
    return {"paths": paths, "figure": "demo", **plain}


def test_a_report_of_two_methods(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = ResultsStore(tmp_path / "results")
    for seed in (0, 1):
        write(store, "rem", seed, 0.9)
        write(store, "npo", seed, 0.5)
    folder = store.run_folder("rem-0-run") / "curves"
    folder.mkdir()
    (folder / "metrics.csv").write_text(CURVES)
    store.write_failure("broken-run", "KeyError: 'x'")
    paths = summary_report.write_summary(config | {"where": {"corruption": "poison"}})
    names = [f"{n}.{s}" for n in ("summary", "regions", "tests") for s in ("csv", "md", "tex")]
    assert [p.name for p in paths] == [*names, "demo.png", "demo.pdf", "report.html"]
    assert all(p.stat().st_size for p in paths)
    out = capsys.readouterr().out
    assert "4 runs" in out and out.index("rem") < out.index("npo")
    assert "Holm" in out and "by region" not in out  # one task has no regions


@pytest.mark.parametrize("figure", ["comparison", "heatmap", "none"])
def test_other_figures(config: dict[str, Any], tmp_path: Path, figure: str):
    write(ResultsStore(tmp_path / "results"), "rem", 0, 0.9)
    paths = summary_report.write_summary(config | {"figure": figure})
    assert len(paths) == (7 if figure == "none" else 9)


def test_what_cannot_be_reported(config: dict[str, Any], tmp_path: Path):
    with pytest.raises(ValueError, match="figure must be one of comparison, corruptions, demo"):
        summary_report.write_summary(config | {"figure": "pie"})
    with pytest.raises(ValueError, match="logger must be wandb or none for a summary, got csv"):
        summary_report.write_summary(config | {"logger": {"csv": {"_target_": "x"}}})
    with pytest.raises(ValueError, match="expected: unknown colour"):
        summary_report.write_summary(config | {"expected": [{"colour": "red"}]})
    with pytest.raises(ValueError, match=r"no results in .* for where="):
        summary_report.write_summary(config | {"where": {"method": "rem"}})
    write(ResultsStore(tmp_path / "results"), "rem", 0, 0.9)
    with pytest.raises(ValueError, match="no column 'metod'"):
        summary_report.write_summary(config | {"where": {"metod": "rem"}})


def test_other_groups_keep_their_table(config: dict[str, Any], tmp_path: Path):
    write(ResultsStore(tmp_path / "results"), "rem", 0, 0.9)
    paths = summary_report.write_summary(
        config | {"figure": "none", "by": ["corruption", "method"]}
    )
    assert paths[0].read_text().splitlines()[0].startswith("corruption,method,n,healed")


def test_claims_are_printed_and_saved_with_the_ends_of_curves(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = ResultsStore(tmp_path / "results")
    write(store, "rem", 0, 0.9)
    folder = store.run_folder("rem-0-run") / "curves"
    folder.mkdir()
    (folder / "metrics.csv").write_text(CURVES)
    curve = "curve/base/hidden_accuracy_given"
    expected = [
        {"method": "rem", "column": "healed", "value": 0.8, "tolerance": 0.05, "source": "s"},
        {"method": "rem", "column": f"{curve}/first", "value": 0.9, "source": "s"},
        {"method": "rem", "column": f"{curve}/last", "at_most": 0.1, "source": "s"},
        {"order": "rem > npo", "column": "healed", "source": "s"},
    ]
    paths = summary_report.write_summary(config | {"figure": "none", "expected": expected})
    assert [p.name for p in paths[-3:-1]] == ["claims.csv", "claims.md"]
    table = pd.read_csv(paths[-3])
    assert table["verdict"].tolist() == ["outside", "inside", "inside", "missing"]
    out = capsys.readouterr().out
    assert (
        out.count("inside") == 3
    )  # two claims and the count of verdicts and "outside" in out and "missing" in out
    with pytest.raises(ValueError, match="must end in /first or /last, got middle"):
        summary_report.write_summary(
            config | {"expected": [expected[1] | {"column": f"{curve}/middle"}]}
        )


def test_what_to_beware_of_is_said(
    config: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = ResultsStore(tmp_path / "results")
    for seed in (0, 1):
        write(store, "rem", seed, 0.9)
    write(store, "npo", 0, 0.5)
    write(store, "npo", 0, 0.6, run="npo-other-run")
    write(store, "ssd", 1, 0.6, dataset="svhn")
    summary_report.write_summary(config | {"figure": "none"})
    said = caplog.text
    assert "2 settings of data" in said and "1 cell with several runs" in said
    assert "npo 2, rem 1, ssd 2" in said


def test_a_row_says_what_failed(capsys: pytest.CaptureFixture[str]):
    run_summary.print_row({"healed": 0.5, "utility": None, "n": 3}, "one")
    out = capsys.readouterr().out
    assert "0.500" in out and "-" in out and "failed" not in out
    run_summary.print_row({"healed": None, "failed/headline": "KeyError"}, "one")
    assert "failed" in capsys.readouterr().out


def test_data_that_nobody_corrupted_have_closeness_in_place_of_healing(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = ResultsStore(tmp_path / "results")
    for seed in (0, 1):
        for method, mode in (("original", None), ("rum(npo refined)", "refined")):
            close = {"tow": 0.75, "mia_gap": 0.25, "mode": mode}
            write(store, method, seed, run=f"{mode}-{seed}-run".lower(), corruption="none", **close)
    paths = summary_report.write_summary(config | {"figure": "auto"})
    names = [f"{n}.{s}" for n in ("refined", "rum") for s in ("csv", "md", "tex")]
    assert [p.name for p in paths] == [*names, "closeness.png", "closeness.pdf", "report.html"]
    said = capsys.readouterr().out
    assert "0.750 ± 0.000" in said
    assert "healed" not in said
    write(store, "rem", 0, 0.5)
    paths = summary_report.write_summary(config | {"figure": "auto"})
    assert {"summary.csv", "refined.csv", "comparison.png", "closeness.png"} <= {
        p.name for p in paths
    }
    assert "original" not in (tmp_path / "reports" / "summary.csv").read_text()


def test_the_line_of_a_run_shows_what_it_has():
    assert run_summary.format_headline(
        {"healed": 0.5, "utility": 1.0, "healed_utility": 0.5, "seconds": 1.0}
    ) == ("healed 0.500, utility 1.000, product 0.500, 1.0 s")
    plain = {"healed": None, "tow": 0.5, "tow_mia": 0.25, "mia_gap": 0.0, "seconds": 1.0}
    assert run_summary.format_headline(plain) == "ToW 0.500, ToW-MIA 0.250, MIA gap 0.000, 1.0 s"


def test_regularity_is_measured_kept_and_read_by_the_advice(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = ResultsStore(tmp_path / "results")
    for corruption, value in (("poison", 1.0), ("subclass", 0.5), ("random_label", 0.0)):
        for rate in (0.5, 1.0):
            given = {"forget/accuracy_given": value if rate < 1 else 0.0}
            for method, healed in (("retrain", 0.1), ("original", 0.5), ("npo", value)):
                write(
                    store, method, 0, healed, run=f"{method}-{corruption.replace('_', '-')}-{rate:.0%}".replace("%", ""),
                    corruption=corruption, discovery=rate, **given,
                )  # fmt: skip
    plain = config | {"figure": "regularity", "where": {}}
    paths = summary_report.write_summary(plain)
    assert {"regularity.csv", "below_nothing.csv", "regularity_plane.png"} <= {
        p.name for p in paths
    }
    table = pd.read_csv(tmp_path / "reports" / "regularity.csv").set_index("corruption")
    assert table["regularity"].to_dict() == {"poison": 1.0, "subclass": 0.5, "random_label": 0.0}
    below = pd.read_csv(tmp_path / "reports" / "below_nothing.csv").set_index("method")
    assert below.loc["original", "below"] == 0 < below.loc["npo", "below"] < 1
    assert (tmp_path / "regularity.csv").is_file()
    capsys.readouterr()
    names = {"dataset": "digits", "model": "resnet9", "corruption": "none"}
    case = config | {"names": names, "checkpoint": None, "discovery": 0.5}
    where = {"method": ["npo", "original"]}  # without the rows it was measured from
    summary_report.print_advice(case | {"where": where}, Regularity(30, 0.5, 0.0))
    out = capsys.readouterr().out
    fit = out[out.index("fit at regularity 0.00 (consistency)") :]
    assert "below doing nothing" in fit and fit.index("original") < fit.index("npo")
    summary_report.print_advice(case | {"where": where})
    assert "fit at regularity" not in capsys.readouterr().out


def test_cells_with_nothing_to_unlearn_are_left_out_and_named(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = ResultsStore(tmp_path / "results")
    facts = {"ceiling": 0.9, "healed_original": 0.1}
    for method, healed in (("original", 0.1), ("rem", 0.8)):
        write(store, method, 0, healed, memorized=0.8, recovered=(healed - 0.1) / 0.8, **facts)
        write(store, method, 1, 0.95, corruption="random_label", memorized=0.02, **facts)
    paths = summary_report.write_summary(config | {"figure": "all"})
    assert {"tasks.csv", "heatmap.png"} <= {p.name for p in paths}
    table = pd.read_csv(tmp_path / "reports" / "summary.csv").set_index("method")
    assert table["n"].to_dict() == {"rem": 1, "original": 1}
    assert table["recovered"].to_dict() == pytest.approx({"rem": 0.875, "original": 0.0})
    out = capsys.readouterr().out
    assert "nothing to unlearn" in out and "1 cell of random_label left out of means" in out
    assert "left out of means" in (tmp_path / "reports" / "summary.md").read_text()
    assert '"least":0.3' in (tmp_path / "reports" / "report.html").read_text()


def test_a_plane_without_anything_to_unlearn_has_no_means(config: dict[str, Any], tmp_path: Path):
    store = ResultsStore(tmp_path / "results")
    for discovery in (0.1, 0.5):
        write(
            store,
            "rem",
            0,
            0.9,
            run=f"rem-{discovery * 10:g}-run",
            discovery=discovery,
            memorized=0.1,
        )
    paths = summary_report.write_summary(config | {"figure": "all"})
    names = {p.name for p in paths}
    assert "tasks.csv" in names and "heatmap.png" in names and "summary.csv" not in names
