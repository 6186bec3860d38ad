from pathlib import Path
from typing import Any

import pytest

from unlearn.reporting import console
from unlearn.results.record import RunRecord
from unlearn.results.store import ResultsStore

CURVES = "epoch,base/hidden_accuracy_given,full/hidden_accuracy_given\n0,0.9,0.9\n1,0.1,0.95\n"


def write(store: ResultsStore, method: str, seed: int, healed: float) -> None:
    store.write(
        RunRecord(
            run_id=f"{method}-{seed}-run",
            step=0,
            names={"dataset": "digits", "corruption": "poison", "method": method},
            config={"seed": seed, "discovery": 0.5, "corrupted": 0.05},
            metrics={"healed": healed, "utility": 1.0, "healed_utility": healed},
            status="ok",
            reason=None,
            seconds=1.0,
            peak_bytes=1,
            versions={},
            revision=None,
            created="",
        )
    )


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    paths = {"results": str(tmp_path / "results"), "reports": str(tmp_path / "reports")}
    return {"paths": paths, "figure": "demo", "where": {}, "by": ["method"], "title": None}


def test_a_report_of_two_methods(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = ResultsStore(tmp_path / "results")
    for seed in (0, 1):
        write(store, "rem", seed, 0.9)
        write(store, "npo", seed, 0.5)
    folder = store.folder("rem-0-run") / "curves"
    folder.mkdir()
    (folder / "metrics.csv").write_text(CURVES)
    store.write_failure("broken-run", "KeyError: 'x'")
    paths = console.report(config | {"where": {"corruption": "poison"}})
    names = ["summary.csv", "summary.md", "summary.tex", "demo.png", "demo.pdf"]
    assert [p.name for p in paths] == names and all(p.stat().st_size for p in paths)
    out = capsys.readouterr().out
    assert "4 runs" in out and out.index("rem") < out.index("npo")
    curves = console.curves(store, store.load())
    assert curves is not None and len(curves) == 2


@pytest.mark.parametrize("figure", ["comparison", "heatmap", "none"])
def test_other_figures(config: dict[str, Any], tmp_path: Path, figure: str):
    write(ResultsStore(tmp_path / "results"), "rem", 0, 0.9)
    paths = console.report(config | {"figure": figure})
    assert len(paths) == (3 if figure == "none" else 5)


def test_what_cannot_be_reported(config: dict[str, Any], tmp_path: Path):
    with pytest.raises(ValueError, match="figure must be one of comparison, demo"):
        console.report(config | {"figure": "pie"})
    with pytest.raises(ValueError, match=r"no results in .* for where="):
        console.report(config | {"where": {"method": "rem"}})
    write(ResultsStore(tmp_path / "results"), "rem", 0, 0.9)
    with pytest.raises(ValueError, match="no column 'metod'"):
        console.report(config | {"where": {"metod": "rem"}})


def test_a_row_says_what_failed(capsys: pytest.CaptureFixture[str]):
    console.print_row({"healed": 0.5, "utility": None, "n": 3}, "one")
    out = capsys.readouterr().out
    assert "0.500" in out and "-" in out and "failed" not in out
    console.print_row({"healed": None, "failed/headline": "KeyError"}, "one")
    assert "failed" in capsys.readouterr().out
