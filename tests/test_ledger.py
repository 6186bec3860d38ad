"""The page of published claims is what its command writes."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import ledger
from unlearn.config.registration import config_dir
from unlearn.reporting.tables.claims import parse_claims

SOURCE = {"source": "arXiv"}


def test_the_page_is_what_the_command_writes():
    assert ledger.write_page() == ledger.PAGE.read_text(encoding="utf-8"), (
        "run python -m benchmarks.ledger"
    )


def test_every_claim_has_a_paper_and_a_command_that_exists():
    content = ledger.read_ledger()
    for claim in content["claims"]:
        assert claim["source"] in content["papers"]
        nodes = [one for node in claim["expected"] for one in parse_claims(SOURCE | node)]
        assert nodes
        name = claim.get("experiment")
        assert name is None or Path(config_dir(), "experiment", "report", f"{name}.yaml").exists()
    words = [claim["claim"] for claim in content["claims"]]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("healed", "memorized", "cell"),
    [
        ((0.9, 0.5), 0.8, "holds: 0.4 (1)"),
        ((0.2, 0.5), 0.8, "does not hold: -0.3 (1)"),
        ((0.9, 0.5), 0.1, "nothing to unlearn"),
        ((0.9, None), 0.8, "\N{EN DASH}"),
    ],
)
def test_verdicts(healed: tuple[float, float | None], memorized: float, cell: str):
    rows = [
        {"method": m, "healed": h, "status": "ok", "seed": 0, "memorized": memorized}
        for m, h in zip(("rem", "npo"), healed, strict=True) if h is not None
    ]  # fmt: skip
    claim = {"source": "x", "expected": [{"order": "rem > npo", "column": "healed"}]}
    assert ledger.measure_cell(claim, [pd.DataFrame(rows)]) == cell


def test_the_weakest_of_several_is_shown_with_its_interval():
    rows = [
        {"method": m, "healed": h + 0.1 * s, "status": "ok", "seed": s}
        for m, h in (("a", 0.9), ("b", 0.5), ("c", 0.8)) for s in (0, 1, 2)
    ]  # fmt: skip
    nodes = [{"order": "a > b", "column": "healed"}, {"order": "a > c", "column": "healed"}]
    cell = ledger.measure_cell({"source": "x", "expected": nodes}, [pd.DataFrame(rows)])
    assert cell.startswith("holds: 0.1 ±") and cell.endswith("(3)")


def test_wrong_words_are_refused_in_one_line():
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "device=tpu"],
        capture_output=True, text=True, cwd=ledger.ROOT, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == "error: device must be gpu or cpu, scale full or small\n"
