import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from unlearn.reporting.figures import canvas, method_bars
from unlearn.reporting.tracking import wandb_mirror


def logged(read: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, dict]:
    """Return what a real offline run recorded, by key; W&B's service may still be writing it."""
    end = time.monotonic() + 20
    while not (found := read(folder)["history"]) and time.monotonic() < end:
        time.sleep(0.2)
    return {k: v for row in found for k, v in row.items() if isinstance(v, dict)}


def test_tables_and_figures_are_in_the_offline_run(
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wandb_run: Callable[[Path], dict[str, Any]],
):
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("WANDB_MODE", "offline")
    from unlearn.reporting.tables import comparisons, summary

    png, _ = canvas.save_figure(method_bars.draw_comparison(rows), tmp_path / "comparison")
    page = tmp_path / "report.html"
    page.write_text("<p>report</p>")
    wandb_mirror.mirror_report(
        {"summary": summary.summarize_methods(rows), "tests": comparisons.compare_with_best(rows)},
        {"comparison": png},
        folder=tmp_path,
        run_id="s0123456789ab",
        options={"project": "unlearn", "entity": None, "artifacts": True},
        report=page,
    )
    found = logged(wandb_run, tmp_path)
    kinds = {key: value["_type"] for key, value in found.items()}
    assert kinds == {
        "tables/summary": "table-file",
        "tables/tests": "table-file",
        "figures/comparison": "image-file",
    }
    kind, facts, files = wandb_run(tmp_path)["artifacts"]["report-s0123456789ab"]
    assert (kind, facts) == ("report", {"run_id": "s0123456789ab"})
    assert files == {"report.html": str(page)}
    (run,) = tmp_path.glob("wandb/offline-run-*")
    assert run.name.endswith("s0123456789ab")
    table = json.loads((run / "files" / found["tables/summary"]["path"]).read_text())
    assert table["columns"][:2] == ["method", "n"] and [r[0] for r in table["data"]] == [
        "rem",
        "npo_fast",
    ]
    assert (run / "files" / found["figures/comparison"]["path"]).stat().st_size > 1000


def test_only_wandb_holds_tables():
    assert (
        wandb_mirror.find_wandb_options(None) is None
        and wandb_mirror.find_wandb_options({"wandb": None}) is None
    )
    node = {"_target_": "x", "project": "p", "entity": None}
    assert wandb_mirror.find_wandb_options({"wandb": node}) == {"project": "p", "entity": None}
    with pytest.raises(ValueError, match="got csv, tensorboard"):
        wandb_mirror.find_wandb_options({"wandb": node, "tensorboard": {"a": 1}, "csv": {"a": 1}})


def test_the_same_rows_have_the_same_id():
    one = wandb_mirror.summary_id(["a", "b"], {"by": ["method"]})
    assert one == wandb_mirror.summary_id(["b", "a"], {"by": ["method"]}) and len(one) == 13
    assert one != wandb_mirror.summary_id(["a"], {"by": ["method"]})
    assert one != wandb_mirror.summary_id(["a", "b"], {"by": ["dataset"]})
