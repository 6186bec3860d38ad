"""Further models that metrics compare with: what is refused, what is trained, what stays in the cache."""

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
from unlearn.pipeline import reference_models, unlearn_job
from unlearn.pipeline.context import load_context
from unlearn.pipeline.forget_set import load_with_forget_set

TINY = [
    "dataset=synthetic", "corruption=none", "pretraining.epochs=1", "pretraining.batch_size=64",
    "model.width=2", "forget_set=random", "forget_set.size=18", "trainer.accelerator=cpu",
    "trainer.progress=false", "method=finetune", "method.epochs=1", "method.batch_size=64",
]  # fmt: skip


@cache
def config_of(*overrides: str) -> str:
    with enable_composition([config_dir()]):
        return json.dumps(
            to_plain_config(compose_config("unlearn", [*TINY, *overrides], [config_dir()]))
        )


def build(node):
    return instantiate(node, _convert_="all")


def job_of(tmp_path: Path, *overrides: str) -> Job:
    config = json.loads(config_of(*overrides)) | {"logger": {}}
    config["paths"] |= {"checkpoints": str(tmp_path / "c"), "results": str(tmp_path / "r")}
    return Job(config, "r00000", tmp_path / "run", config["names"], build, brief=True)


def row_of(tmp_path, *overrides):
    job = job_of(tmp_path, *overrides)
    job.folder.mkdir(exist_ok=True)
    unlearn_job.unlearn_job(job)
    (path,) = tmp_path.glob("r/*/row-0.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["evaluation=lira"], "needs the models of score=memorization"),
        (["evaluation=lira", "score=entropy"], "needs the models of score=memorization"),
        (["evaluation=lira", "score=memorization", "score.num_models=7"], "at least 8, got 7"),
        (["evaluation=twins", "evaluation.klom.num_models=2"], "num_models of at least 3"),
    ],
)
def test_too_few_models_are_refused_before_anything_is_trained(tmp_path, overrides, text):
    if "evaluation.klom.num_models=2" in overrides:
        overrides = [*overrides, "evaluation.ulira.num_models=2"]
    with pytest.raises(ValueError, match=text):
        unlearn_job.unlearn_job(job_of(tmp_path, *overrides))
    assert not (tmp_path / "c").exists()


def test_twins_are_unlearned_and_retrained_with_other_seeds(tmp_path):
    small = ["evaluation.klom.num_models=3", "evaluation.ulira.num_models=3"]
    row = row_of(tmp_path, "evaluation=twins", *small)
    assert row["klom/forget"] >= 0
    assert 0 <= row["ulira/auc"] <= 1
    assert row["js/forget"] >= 0
    assert not [k for k in row if k.startswith("failed/")]
    seeds = [
        (content["seeds"]["train"], "forget" in content)
        for content in (json.loads(p.read_text()) for p in tmp_path.glob("c/*/identity.json"))
    ]
    assert sorted(seeds) == [(s, f) for s in (0, 1000, 2000) for f in (False, True)]


def test_shadows_are_the_models_of_the_score(tmp_path, monkeypatch):
    options = ["evaluation=lira", "score=memorization", "score.num_models=16"]
    row = row_of(tmp_path, *options)
    assert 0 <= row["lira/auc"] <= 1
    assert 0 <= row["lira/member"] <= 1
    assert 0.8 < row["lira/judged"] <= 1
    job = job_of(tmp_path, *options)
    context = load_with_forget_set(job)
    monkeypatch.setattr(
        reference_models, "train_without", None
    )  # nothing is trained or loaded again
    found = reference_models.load_shadow_models(context)
    assert found.member_mask.shape == found.margin.shape == (16, 200)
    assert found.member_mask.sum(1).tolist() == [140] * 16


def test_too_few_models_on_one_side_are_refused_before_anything_is_unlearned(tmp_path, monkeypatch):
    options = ["evaluation=lira", "score=memorization", "score.num_models=9"]
    job = job_of(tmp_path, *options, "score.subset_fraction=0.95")
    context = load_context(job, forget=False)
    context = replace(context, task=replace(context.task, forget=(torch.arange(18),)))
    with pytest.raises(ValueError, match=r"only \d+% of them have that: raise score.num_models=9"):
        reference_models.check_lira_coverage(context)
    reference_models.check_lira_coverage(
        replace(context, job=job_of(tmp_path, *options, "score.subset_fraction=0.5"))
    )


def test_relearning_compares_with_the_retrained_model(tmp_path):
    row = row_of(tmp_path, "evaluation=relearn", "evaluation.relearn.max_steps=5")
    assert 0 <= row["relearn_steps"] <= 5
    assert 0 <= row["relearn_steps_retrained"] <= 5
