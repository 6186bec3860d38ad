"""Several processes at overlapping sweeps over one store."""

import json
from pathlib import Path
from typing import Any

import pytest

ALL = "method=original,finetune seed=0,1 discovery=0.5,1.0"
SWEEPS = (
    ALL,
    "method=original,finetune seed=1 discovery=0.5,1.0",
    "method=finetune,original seed=1,0 discovery=1.0,0.5",  # the same cells, the other way round
    "method=original seed=0,1 discovery=0.5,1.0",
    "method=finetune seed=0,1 discovery=1.0,0.5",
    "method=original,finetune seed=0 discovery=1.0,0.5",
    "method=finetune,original seed=0,1 discovery=1.0",
    ALL,
)
CELLS, ORIGINALS = 8, 2


@pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_overlapping_sweeps_make_each_row_and_each_original_once(
    nursery: Any, store: Any, small: tuple[str, ...], tmp_path: Path, count: int
):
    started = [
        nursery.start(tmp_path, "--multirun", *small, *sweep.split(), "save_model=false")
        for sweep in SWEEPS[:count]
    ]
    ended = [process.wait() for process in started]
    assert [code for code, _ in ended] == [0] * count, ended
    lines = [line for _, said in ended for line in said]
    trainings = [line for line in lines if line.startswith("training the original model")]
    assert len(trainings) == len(store(tmp_path).trained()) == ORIGINALS
    made = sum(int(said[-1].partition(" done")[0]) for _, said in ended)
    assert made == len(store(tmp_path).table()) == CELLS, lines
    rows = [json.loads(text) for text in store(tmp_path).files().values()]
    cells = {(row["method"], row["seed"], row["discovery"]) for row in rows}
    assert len(cells) == CELLS
