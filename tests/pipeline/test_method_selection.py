"""RUM's automatic choice: ranking by hand, and candidates judged on seeds that no result uses."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.pipeline import method_selection, unlearn_job
from unlearn.pipeline.run_method import UnlearningResult, run_method

TINY = [
    "dataset=synthetic", "corruption=none", "pretraining.epochs=1", "pretraining.batch_size=64",
    "model.width=2", "method=rum", "method.mode=auto", "auto_methods=refined", "validation=0.2",
    "forget_set=memorization", "forget_set.size=18", "score=entropy", "evaluation=refined",
    "trainer.accelerator=cpu", "trainer.progress=false", "seed=3",
]  # fmt: skip


def test_the_highest_mean_is_best_and_of_ties_the_cheapest():
    seconds = {"nothing": [0.0], "slow": [5.0], "fast": [1.0]}
    assert (
        method_selection.select_best({"nothing": [0.8], "slow": [0.9], "fast": [0.89]}, seconds)
        == "slow"
    )
    assert (
        method_selection.select_best({"nothing": [0.9], "slow": [0.9], "fast": [0.9]}, seconds)
        == "nothing"
    )
    # two seeds: 0.9 ± 12.7 * 0.01 / sqrt(2) reaches down to 0.81
    pairs = {name: value * 2 for name, value in seconds.items()}
    values = {"nothing": [0.7, 0.7], "slow": [0.895, 0.905], "fast": [0.87, 0.87]}
    assert method_selection.select_best(values, pairs) == "fast"
    assert method_selection.select_best(values | {"fast": [0.8, 0.8]}, pairs) == "slow"


@cache
def config_of(*overrides: str) -> str:
    with enable_composition([config_dir()]):
        kept = [o for o in TINY if "~" + o.partition("=")[0] not in overrides]
        asked = [*kept, *(o for o in overrides if not o.startswith("~"))]
        return json.dumps(to_plain_config(compose_config("unlearn", asked, [config_dir()])))


def build(node):
    return instantiate(node, _convert_="all")


def job_of(tmp_path: Path, *overrides: str, methods=None, **more) -> Job:
    config = json.loads(config_of(*overrides)) | more
    config["paths"] |= {"checkpoints": str(tmp_path / "c"), "results": str(tmp_path / "r")}
    if methods:
        kept = {name: config["auto_methods"]["methods"][name] for name in methods}
        config["auto_methods"] = config["auto_methods"] | {"methods": kept}
    return Job(config, "r00000", tmp_path / "run", config["names"], build)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["~auto_methods"], "go together"),
        (["method.mode=meta"], "go together"),
        (["validation=null"], "validation=0.1"),
        (["auto_methods.metric=mia"], "tow, tow_mia, got metric mia"),
        (["auto_methods.seeds=[3]"], r"differ from the run's seeds, got \[3\]"),
        (["auto_methods.seeds=[]"], r"seeds \[\]"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, overrides, text):
    with pytest.raises(ValueError, match=text):
        method_selection.choose_methods(job_of(tmp_path, *overrides), run_method)


def test_other_runs_are_left_as_they_are(tmp_path):
    job = job_of(tmp_path, "method.mode=meta", "~auto_methods")
    assert method_selection.choose_methods(job, run_method) == (job, {})


def test_each_part_gets_what_is_closest_to_retraining(tmp_path, monkeypatch):
    asked = []

    def attempt(context, model, *, seed, loggers):
        name = context.job.config["method"]["_target_"].rpartition(".")[2]
        asked.append((name, seed, context.task.forget_indices().tolist()))
        assert context.task.test is context.dataset.validation  # never the test set
        assert (
            context.job.config["method"].get("seed", 100)
            == context.job.config["seeds"]["train"]
            == 100
        )
        return UnlearningResult(model, 1.0 + len(asked), 0, 0, {})

    def score(predictions, task, reference):
        name, _, forget = asked[-1]
        wanted = {"Original": 0, "Finetune": 1, "SalUn": 2}[name]
        part = parts.setdefault(tuple(forget), len(parts))
        return {"tow": 0.9 if part == wanted else 0.5}

    parts: dict[tuple[int, ...], int] = {}
    monkeypatch.setattr(method_selection, "compute_tow", score)
    monkeypatch.setattr(method_selection, "compute_mia", lambda *_: {"tow_mia": 0.0})
    job = job_of(tmp_path, methods=("original", "finetune", "salun"))
    settled, facts = method_selection.choose_methods(job, attempt)
    assert [facts[f"chosen/{p}"] for p in ("low", "mid", "high")] == [
        "original", "finetune", "salun",
    ]  # fmt: skip
    steps = settled.config["method"]["steps"]
    assert steps["high"] == job.config["auto_methods"]["methods"]["salun"]
    assert steps["high"]["seed"] == 3  # of the run, not of the choice
    assert [len(forget) for forget in parts] == [6, 6, 6]
    assert len(asked) == 9
    table = json.loads((tmp_path / "run" / "choice.json").read_text())
    assert {(r["part"], r["method"]) for r in table if r["tow"] == 0.9} == {
        ("low", "original"), ("mid", "finetune"), ("high", "salun"),
    }  # fmt: skip
    again, same = method_selection.choose_methods(job, attempt)  # from the cache
    assert len(asked) == 9
    assert (again.config, same) == (settled.config, facts)


def test_a_lost_model_is_never_chosen(tmp_path):
    def attempt(context, model, *, seed, loggers):
        lost = "Original" not in context.job.config["method"]["_target_"]
        return UnlearningResult(None if lost else model, 0.0 if lost else 1.0, 0, 0, {})

    _, facts = method_selection.choose_methods(
        job_of(tmp_path, methods=("original", "finetune")), attempt
    )
    assert {facts[f"chosen/{p}"] for p in ("low", "mid", "high")} == {"original"}


def test_the_row_says_what_was_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(unlearn_job.run_summary, "print_row", lambda *_, **__: None)
    job = job_of(tmp_path, methods=("original",), logger={})
    unlearn_job.unlearn_job(replace(job, brief=True))
    (path,) = tmp_path.glob("r/*/row-0.json")
    row = json.loads(path.read_text())
    assert row["chosen/mid"] == "original"
    assert json.loads(row["method/methods"]) == ["Original"] * 3
    assert row["config/method.steps.high._target_"].endswith("Original")
    assert torch.load(next(tmp_path.glob("c/*/model.pt")), weights_only=True)
