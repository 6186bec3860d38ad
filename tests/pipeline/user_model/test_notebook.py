"""The notebook of the Python interface runs, top to bottom, and heals."""

import json
import re
from pathlib import Path

import pytest
import torch

NOTEBOOK = Path(__file__).resolve().parents[3] / "docs" / "heal.ipynb"


def test_the_notebook_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    threads = torch.get_num_threads()
    space: dict[str, object] = {"__name__": "notebook"}
    try:
        for number, text in enumerate(code):
            exec(compile(text, f"{NOTEBOOK.name}, code cell {number}", "exec"), space)
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    hidden = {
        line.split()[0]: float(re.search(r"right: ([\d.]+)", line)[1])  # type: ignore[index]
        for line in said.splitlines() if "hidden bad" in line
    }  # fmt: skip
    assert hidden["original"] < 0.2
    assert min(hidden["healed"], hidden["npo"]) > hidden["original"] + 0.3
    assert "<!doctype html>" in (tmp_path / "healed.html").read_text()
