"""What is found: false alarms, detectors by name, and the rows that they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unlearn.config import composition
from unlearn.config.command_line import parse_command_line
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.core import errors
from unlearn.data.forget_sets.discovered import add_clean_samples

REPOSITORY = Path(__file__).resolve().parents[3]


def content(*overrides: str):
    arguments = parse_command_line(["method=npo", *overrides])
    composition.check_jobs("unlearn", arguments)
    with composition.enable_composition(arguments.folders):
        return to_plain_config(
            composition.compose_config("unlearn", arguments.overrides, arguments.folders)
        )


def test_false_alarms_come_on_top():
    corrupted = torch.zeros(100, dtype=torch.bool)
    corrupted[:20] = True
    found = torch.arange(0, 20, 2)
    some, more = (add_clean_samples(found, corrupted, p, seed=0) for p in (0.5, 0.25))
    assert len(some) == 20 and len(more) == 40
    assert set(found.tolist()) < set(some.tolist()) < set(more.tolist())
    assert int(corrupted[more].sum()) == 10
    assert torch.equal(add_clean_samples(found, corrupted, 1.0, seed=0), found)
    assert torch.equal(some, some.sort().values)
    assert not torch.equal(some, add_clean_samples(found, corrupted, 0.5, seed=1))
    with pytest.raises(
        ValueError, match="needs 90 clean samples besides 10 found ones, but there are only 80"
    ):
        add_clean_samples(found, corrupted, 0.1, seed=0)


def test_a_detector_is_a_way_to_discover():
    made = content("discovery=activation_clustering")
    assert made["discovery"] is None
    assert "activation_clustering" in made["forget_set"]["_target_"]
    assert made == content("detector@forget_set=activation_clustering")
    assert content("discovery=half")["discovery"] == 0.5
    assert (
        len(
            composition.check_jobs(
                "unlearn", parse_command_line(["-m", "discovery=loss,confidence"])
            )
        )
        == 2
    )
    with pytest.raises(errors.ConfigError, match=r"a detector \(.*, loss, .*\), got los$"):
        content("discovery=los")


def test_ids_of_before_stay():
    """A feature that is off is no part of what a run is known by."""
    made = content("discovery=0.5")
    assert made["discovery_precision"] is None
    without = {k: v for k, v in made.items() if k != "discovery_precision"}
    assert compute_run_id(without) == compute_run_id(made)
    assert compute_run_id(content("discovery=0.5", "discovery_precision=0.5")) != compute_run_id(
        made
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["discovery=0.5", "detector@forget_set=loss"],
            r"discovery=0.5 and a detector \(loss\) are both",
        ),
        (["discovery=loss,0.5", "-m"], "rates and detectors cannot share a sweep"),
        (["discovery=loss", "discovery_precision=0.5"], "adds false alarms to a simulated"),
        (["discovery_precision=0"], r"discovery_precision must be in \(0, 1\], or null, got 0"),
        (["discovery=0"], r"discovery must be in \(0, 1\], got 0"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_what_contradicts_itself_is_refused(overrides: list[str], expected: str):
    with pytest.raises(errors.ConfigError, match=expected):
        content(*overrides)


def test_rows_say_how_good_the_found_set_is(tmp_path: Path):
    """With a corruption that is simulated and without any: the detector is told neither."""
    variables = os.environ | {"UNLEARN_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "unlearn.py", "-m", "corruption=random_label,none", "method=original,finetune",
        "discovery=confidence", "dataset=synthetic", "pretraining.epochs=4",
        "pretraining.batch_size=64", "method.epochs=1", "trainer.accelerator=cpu",
    ]  # fmt: skip
    command.remove("method.epochs=1")
    result = subprocess.run(
        command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(p.read_text()) for p in tmp_path.glob("results/*/row-0.json")]
    assert len(rows) == 4
    for row in rows:
        assert row["discovery/by"] == "confidence"
        assert row["discovery"] is None
        assert row["discovery/size"] == 10  # a twentieth of 200
        found = json.loads((tmp_path / "results" / row["run_id"] / "forget_set.json").read_text())
        assert len(found[0]) == 10
        if row["corruption"] == "none":
            assert "discovery/precision" not in row
        else:
            assert row["discovery/precision"] == row["discovery/recall"] > 0.5  # 10 are bad as well
    searches = [json.loads(p.read_text()) for p in tmp_path.glob("checkpoints/*/identity.json")]
    kept = [c for c in searches if "detector" in c]
    assert len(kept) == 2  # one search per training set, not one per method
