"""A healed model as a W&B artifact, read back from the offline run."""

import importlib.util
import json
import time
from pathlib import Path

from unlearn.pipeline.unlearn_job import unlearn_job

SPEC = importlib.util.spec_from_file_location(
    "wandb_files", Path(__file__).resolve().parents[2] / "reporting" / "conftest.py"
)
assert SPEC is not None and SPEC.loader is not None
wandb_files = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(wandb_files)


def test_a_healed_model_is_an_artifact_of_its_run(words, job, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    made = job(*words, "method.epochs=1", "logger=wandb", "logger.wandb.artifacts=true")
    assert made.run_id == job(*words, "method.epochs=1").run_id
    unlearn_job(made)
    end = time.monotonic() + 20  # W&B's service may still be writing
    while "exit" not in (run := wandb_files.read(made.folder)) and time.monotonic() < end:
        time.sleep(0.2)
    kind, facts, files = run["artifacts"][f"healed-{made.run_id}"]
    card = json.loads((made.folder / "card.json").read_text())
    assert kind == "model" and facts["sha256"] == card["sha256"] and facts["method"] == "npo"
    assert files == {
        name: str(made.folder / name) for name in (card["file"], "card.json", "report.html")
    }
