"""The script for one GPU: options, and going on where the last call stopped."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


def test_without_a_gpu_it_refuses_in_one_line():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="torch finds no GPU; device=cpu scale=small shows"):
        gpu.read_options([])
    with pytest.raises(ValueError, match="unknown option gpus; allowed: device, scale"):
        gpu.read_options(["gpus=1"])
    with pytest.raises(ValueError, match="minutes must be a number, got nine"):
        gpu.read_options(["device=cpu", "minutes=nine"])


def test_steps_that_are_done_are_not_run_again(tmp_path: Path):
    asked = gpu.read_options(["device=cpu", "scale=small", "minutes=0", f"home={tmp_path}"])
    rows = [["REM cell", "0.9, 0.9", "inside"]]
    state = {
        "cell": {"rows": rows, "done": True},
        "plane": {"rows": [["plane", "3", ""]], "done": False},
    }
    (tmp_path / "state_cpu_small.json").write_text(json.dumps(state))
    table = gpu.run_steps(asked)
    assert table.rows == [
        *rows,
        ["speed", "-", "no time left: call again"],
        ["stacking", "-", "no time left: call again"],
        ["plane", "3", ""],
    ]
