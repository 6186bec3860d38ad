"""The network without corrupted samples: trained once, shared, seen by no method, added to old rows."""

import json
import logging
from functools import cache
from pathlib import Path

import pytest
from hydra.utils import instantiate

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.orchestration.cells import compute_original_key, list_trained_clean_only
from unlearn.pipeline import evaluate_job, unlearn_job
from unlearn.pipeline.clean_only import measure_clean_only
from unlearn.pipeline.context import load_context
from unlearn.pipeline.trained_models import load_original
from unlearn.storage.results_store import ResultsStore

TINY = [
    "dataset=synthetic", "corruption=random_label", "corrupted=40", "pretraining.epochs=12",
    "pretraining.batch_size=32", "pretraining.optimizer.lr=0.1", "model.width=4", "trainer.accelerator=cpu", "trainer.progress=false",
    "method=original", "logger=none",
]  # fmt: skip
COLUMNS = ("memorized", "ceiling", "healed_original", "recovered")


@cache
def config_of(name: str, *overrides: str) -> str:
    with enable_composition([config_dir()]):
        return json.dumps(to_plain_config(compose_config(name, overrides, [config_dir()])))


def build(node):
    return instantiate(node, _convert_="all")


def job_of(tmp_path: Path, *overrides: str, name: str = "unlearn") -> Job:
    words = [*TINY, *overrides] if name == "unlearn" else list(overrides)
    config = json.loads(config_of(name, *words))
    who = compute_run_id(config) if name == "unlearn" else "evaluate"
    places = {"checkpoints": "c", "results": "r", "reports": "reports"}
    config["paths"] |= {key: str(tmp_path / folder) for key, folder in places.items()}
    folder = tmp_path / "r" / who
    folder.mkdir(parents=True, exist_ok=True)
    return Job(config, who, folder, config["names"], build, brief=True)


def run(tmp_path: Path, *overrides: str) -> dict:
    job = job_of(tmp_path, *overrides)
    unlearn_job.unlearn_job(job)
    return ResultsStore(tmp_path / "r").read_rows(job.run_id)[0]


def trainings(tmp_path: Path) -> list[int]:
    """Return the number of samples that each cached network was trained without."""
    found = (json.loads(p.read_text()) for p in tmp_path.glob("c/*/identity.json"))
    return sorted(len(content.get("forget", ())) for content in found)


def test_the_columns_and_one_network_for_all_methods(tmp_path):
    row = run(tmp_path, "clean_only=true")
    assert row["recovered"] == 0.0  # the original recovers nothing
    assert row["healed_original"] == row["healed"]
    more = run(tmp_path, "clean_only=true", "method=finetune", "method.epochs=1")
    assert [more[c] for c in COLUMNS[:3]] == [row[c] for c in COLUMNS[:3]]
    ceiling, before = row["ceiling"], row["healed_original"]
    wanted = (more["healed"] - before) / (ceiling - before) if ceiling > before else None
    assert more["recovered"] == (pytest.approx(wanted) if wanted is not None else None)
    assert trainings(tmp_path) == [0, 40]
    key = compute_original_key(job_of(tmp_path).config)
    assert list_trained_clean_only(tmp_path / "c") == {key}


def test_without_the_option_rows_and_ids_are_as_before(tmp_path):
    assert job_of(tmp_path, "clean_only=true").run_id == job_of(tmp_path).run_id
    row = run(tmp_path)
    assert not set(COLUMNS) & set(row)
    assert trainings(tmp_path) == [0]
    other = run(tmp_path / "other", "clean_only=true")
    differs = {k for k in row.keys() | other.keys() if row.get(k) != other.get(k)}
    times = {k for k in differs if k.endswith(("seconds", "bytes", "created"))}
    same = {k for k in differs - times if not k.startswith("config/paths.")}
    assert same == {*COLUMNS, "config/clean_only"}


def test_evaluate_adds_the_columns_without_running_a_method(tmp_path, caplog, monkeypatch):
    wanted = run(tmp_path / "asked", "clean_only=true", "method=finetune", "method.epochs=1")
    row = run(tmp_path, "method=finetune", "method.epochs=1")
    monkeypatch.setattr(unlearn_job, "run_method", None)
    job = job_of(tmp_path, "clean_only=true", "figure=none", name="evaluate")
    with caplog.at_level(logging.INFO):
        evaluate_job.evaluate_job(job)
    assert "1 row without columns of the clean-only network: 1 network" in caplog.text
    added = ResultsStore(tmp_path / "r").read_rows(row["run_id"])[0]
    assert added == row | {c: wanted[c] for c in COLUMNS}
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    caplog.clear()
    evaluate_job.evaluate_job(job)  # nothing is left to add
    assert "without columns" not in caplog.text


def test_a_row_runs_no_code_of_others(tmp_path, caplog):
    row = run(tmp_path)
    store = ResultsStore(tmp_path / "r")
    store.add_columns({(row["run_id"], 0): {"config/model._target_": "os.system"}})
    evaluate_job.evaluate_job(job_of(tmp_path, "clean_only=true", "figure=none", name="evaluate"))
    assert "names code outside of this package (os.system)" in caplog.text
    assert not set(COLUMNS) & set(store.read_rows(row["run_id"])[0])


def test_a_network_with_tied_dropout_counts_as_it_was_trained(tmp_path):
    """Its own masks hold what it memorized: the network without those channels does not count."""
    job = job_of(tmp_path, "pretraining=etd")
    context = load_context(job, forget=False)
    original = load_original(context)[0]
    facts = measure_clean_only(context, original)
    masked = measure_clean_only(context, remove_extra_channels(original))
    assert facts["ceiling"] == masked["ceiling"]
    assert facts != masked


def test_what_cannot_be_measured(tmp_path):
    job = job_of(tmp_path, "clean_only=true")
    job.config["checkpoint"] = "mine.pt"
    with pytest.raises(
        ValueError, match="clean_only=true trains a network by the original's recipe"
    ):
        unlearn_job.unlearn_job(job)
    none = job_of(tmp_path, "corruption=none", "forget_set=random", "clean_only=true")
    context = load_context(none, forget=False)
    assert measure_clean_only(context, load_original(context)[0]) == {}
