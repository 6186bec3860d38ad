"""Refined unlearning from the command line: a score, requests in a row, one row for each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = (
    "dataset=synthetic", "corruption=none", "pretraining.epochs=2", "pretraining.batch_size=64",
    "trainer.accelerator=cpu", "trainer.threads=1",
)  # fmt: skip


def call(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"UNLEARN_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "unlearn.py", *TINY, *arguments],
        cwd=REPOSITORY, env=variables, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_rum_answers_requests_in_a_row(tmp_path: Path):
    result = call(
        tmp_path, "method=rum", "base=neggrad_plus", "method.base.epochs=1",
        "method.base.batch_size=64", "method.base.stop=false", "forget_set=sequential",
        "forget_set.num_requests=2", "forget_set.size=18", "score=entropy", "evaluation=refined",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = {
        row["step"]: row
        for row in (json.loads(p.read_text()) for p in tmp_path.glob("results/*/row-*.json"))
    }
    assert set(rows) == {0, 1}
    for row in rows.values():
        assert row["method"] == "rum(neggrad_plus refined)"
        assert row["score"] == "entropy"
        assert json.loads(row["method/methods"]) == ["NegGradPlus"] * 3
        assert json.loads(row["method/sizes"]) == [6, 6, 6]
        assert 0 <= row["tow"] <= 1
        assert 0 <= row["tow_mia"] <= 1
        assert row["forget_set/entanglement"] > 0
        assert row["forget/accuracy_low"] is not None
    (path,) = tmp_path.glob("results/*/forget_set.json")
    first, second = json.loads(path.read_text())
    assert len(first) == len(second) == 18
    assert not set(first) & set(second)
    identities = [json.loads(p.read_text()) for p in tmp_path.glob("checkpoints/*/identity.json")]
    references = [i["forget"] for i in identities if i.get("forget")]
    assert sorted(references, key=len) == [first, sorted(first + second)]


def test_a_forget_set_by_memorization_asks_for_a_score(tmp_path: Path):
    result = call(tmp_path, "method=original", "forget_set=memorization")
    assert result.returncode == 2
    assert "needs a memorization score: score=holdout_retraining" in result.stderr
    assert not list(tmp_path.glob("results/*/row-*.json"))
