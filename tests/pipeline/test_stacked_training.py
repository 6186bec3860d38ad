"""Models that are trained as one program land in the cache as if trained one by one."""

import copy
import functools
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unlearn.config.command_line import Arguments
from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.orchestration.cells import expand_cells
from unlearn.orchestration.outcomes import JobCounts
from unlearn.orchestration.progress import Progress
from unlearn.orchestration.runner import JobRunner, _instantiate_node
from unlearn.orchestration.stacking import shared_models
from unlearn.pipeline import stacked_training
from unlearn.pipeline.context import load_context
from unlearn.pipeline.sample_scores import compute_sample_scores
from unlearn.pipeline.trained_models import (
    build_original_spec,
    checkpoint_cache,
    load_original,
    predict_retrained,
)
from unlearn.storage.checkpoint_cache import CheckpointCache
from unlearn.training.stacked.pretraining import StackMember
from unlearn.training.stacked.speedup import measure_speedup

pytestmark = pytest.mark.numeric

TINY = (
    "dataset=synthetic", "pretraining.epochs=2", "pretraining.batch_size=64", "model.width=2",
    "evaluation=reference", "trainer.progress=false",
)  # fmt: skip


@functools.cache
def content_of(*options: str) -> str:
    with enable_composition([config_dir()]):
        words = [*TINY, "paths.root=HOME", *options]
        return json.dumps(to_plain_config(compose_config("unlearn", words, [config_dir()])))


def job(home: Path, *options: str, seed: int = 0, discovery: float = 0.5) -> Job:
    content = json.loads(content_of(*options).replace("HOME", str(home)))
    content |= {
        "seed": seed,
        "discovery": discovery,
        "seeds": dict.fromkeys(content["seeds"], seed),
    }
    return Job(content, compute_run_id(content), home, content["names"], _instantiate_node)


def jobs(home: Path, *options: str) -> list[Job]:
    return [job(home, *options, seed=s, discovery=rate) for s in (0, 1) for rate in (0.5, 1.0)]


def kept(home: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the states of all models in the cache by key."""
    return {
        path.parent.name: torch.load(path, weights_only=True)["state"]
        for path in (home / "checkpoints").glob("*/model.pt")
    }


def alike(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=2e-3, atol=2e-3, msg=name)


@pytest.mark.parametrize("pretraining", ["standard", "etd"])
def test_the_models_that_cells_share_are_those_that_they_would_train(tmp_path, pretraining):
    option = f"pretraining={pretraining}"
    for one in jobs(tmp_path / "alone", option, "stack=off"):
        own = load_context(one, forget=True)
        load_original(replace(own, job=one))
        predict_retrained(replace(own, job=one))
    shared_models.train_shared_models(jobs(tmp_path / "stacked", option, "stack=2"))
    alone, stacked = kept(tmp_path / "alone"), kept(tmp_path / "stacked")
    assert len(alone) == 2 + 4
    assert alone.keys() == stacked.keys()
    for key, state in alone.items():
        alike(state, stacked[key])


def test_a_later_single_run_finds_them(tmp_path, monkeypatch):
    shared_models.train_shared_models(jobs(tmp_path, "stack=2"))
    one = job(tmp_path, seed=1, discovery=1.0)
    own = load_context(one, forget=True)
    monkeypatch.setattr("unlearn.pipeline.trained_models.pretrain", None)  # nothing is trained
    _, trained = load_original(replace(own, job=one))
    assert trained.notes["stacked"] == 2
    assert predict_retrained(replace(own, job=one)) is not None


def test_by_default_a_cpu_trains_one_by_one(tmp_path):
    shared_models.train_shared_models(jobs(tmp_path))
    assert not kept(tmp_path)
    content = job(tmp_path).config
    assert [stacked_training.stack_width(content | {"stack": s}) for s in ("auto", "off", "7")] == [
        1,
        1,
        7,
    ]


def test_no_original_is_trained_where_the_user_brings_one(tmp_path):
    many = [job(tmp_path, "stack=2", "evaluation=standard", seed=k) for k in range(2)]
    for one in many:
        one.config["checkpoint"] = "own.pt"
    shared_models.train_shared_models(many)
    assert not kept(tmp_path)


def test_how_models_are_trained_makes_no_other_run(tmp_path):
    assert job(tmp_path).run_id == job(tmp_path, "stack=4").run_id


def test_what_is_there_or_begun_alone_is_left_alone(tmp_path):
    many = [job(tmp_path, "stack=4", seed=k) for k in range(4)]
    settings = [load_context(one, forget=False) for one in many]
    pairs = [
        (s, build_original_spec(replace(s, job=j))) for j, s in zip(many, settings, strict=True)
    ]
    keys = [CheckpointCache.compute_key(training.identity) for _, training in pairs]
    load_original(replace(settings[0], job=many[0]))
    begun = checkpoint_cache(many[1]).model_folder(pairs[1][1].identity) / "resume.ckpt"
    begun.parent.mkdir()
    begun.touch()
    made = stacked_training.train_missing_stacked(many[0], pairs)
    assert sorted(made) == sorted(keys[2:])
    assert kept(tmp_path).keys() == {keys[0], *keys[2:]}


def test_a_stack_that_fails_leaves_its_models_to_be_trained_alone(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise torch.OutOfMemoryError("no room\nmore")
        yield

    monkeypatch.setattr(stacked_training, "pretrain_stacked", full)
    with caplog.at_level(logging.WARNING):
        shared_models.train_shared_models(jobs(tmp_path, "stack=2", "evaluation=standard"))
    assert "training one by one, the stack failed: no room" in caplog.text
    assert not kept(tmp_path)
    one = jobs(tmp_path)[0]
    load_original(replace(load_context(one, forget=False), job=one))  # no lock was left behind
    assert len(kept(tmp_path)) == 1


def test_an_interruption_keeps_what_has_ended_and_frees_the_rest(tmp_path, monkeypatch):
    whole = stacked_training.pretrain_stacked

    def stopped(*words, **options):
        yield next(iter(whole(*words, **options)))
        raise KeyboardInterrupt

    monkeypatch.setattr(stacked_training, "pretrain_stacked", stopped)
    many = [job(tmp_path, "stack=2", "evaluation=standard", seed=k) for k in range(2)]
    with pytest.raises(KeyboardInterrupt):
        shared_models.train_shared_models(many)
    assert len(kept(tmp_path)) == 1
    for one in many:
        load_original(replace(load_context(one, forget=False), job=one))
    assert len(kept(tmp_path)) == 2


def test_auto_keeps_to_one_by_one_where_a_stack_is_no_faster(tmp_path, monkeypatch):
    for module in (stacked_training, shared_models):
        monkeypatch.setattr(module, "stack_width", lambda config: 4)
    for times, made in ((1.1, 0), (3.0, 2)):
        monkeypatch.setattr(
            stacked_training, "measure_speedup", lambda *_, times=times, **__: times
        )
        shared_models.train_shared_models(jobs(tmp_path, "evaluation=standard"))
        assert len(kept(tmp_path)) == made


def test_the_probe_measures_and_changes_nothing(clean, network, engine):
    members = [StackMember(network, clean[0], 0), StackMember(copy.deepcopy(network), clean[0], 1)]
    before = copy.deepcopy(network.state_dict())
    assert 0.05 < measure_speedup(members, 16, engine, augment=None) < 20
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_subset_models_are_trained_together_and_score_the_same(tmp_path):
    score = ["score=memorization", "score.num_models=4", "score.subset_fraction=0.5"]
    values, spent = [], []
    for stack, root in (("off", "alone"), ("3", "stacked")):
        one = job(tmp_path / root, *score, f"stack={stack}", "pretraining.epochs=1")
        trained, _ = compute_sample_scores(
            replace(load_context(one, forget=False), job=one), one.config["score"]
        )
        values.append(trained.records["score"])
        spent.append(trained.notes["seconds"])
    alone, stacked = kept(tmp_path / "alone"), kept(tmp_path / "stacked")
    assert alone.keys() == stacked.keys()
    assert (values[0] - values[1]).abs().mean() < 0.05
    notes = [
        torch.load(p, weights_only=True)["notes"].get("stacked")
        for p in (tmp_path / "stacked").glob("checkpoints/*/model.pt")
    ]
    assert notes.count(3) == 3  # the fourth, and the original, were alone
    assert all(s > 0 for s in spent)


def test_a_sweep_trains_ahead_what_its_cells_share_and_says_so(tmp_path, capsys):
    words = [[*TINY, f"paths.root={tmp_path}", "stack=2", f"seed={k}"] for k in (0, 1)]
    cells = list(expand_cells("unlearn", words, Arguments([], True, False, None, [config_dir()])))
    outcomes = JobCounts(words, progress=Progress(cells))
    JobRunner("unlearn", "unlearn_job", outcomes).train_shared_models()
    assert len(kept(tmp_path)) == 2 + 2
    said = capsys.readouterr().err
    assert "training the original model: stack of 2 (2 epochs) ..." in said
    assert "training retrained references: stack of 2" in said
    off = [replace(cell, content={**cell.content, "stack": "off"}) for cell in cells]
    broken = [replace(cell, content={"stack": "2"}) for cell in cells]
    for given, expected in (
        (off, ""),
        (broken, "shared models are trained later, one by one: KeyError: 'paths'"),
    ):
        outcomes.progress = Progress(given)
        JobRunner("unlearn", "unlearn_job", outcomes).train_shared_models()
        assert capsys.readouterr().err.strip() == expected
