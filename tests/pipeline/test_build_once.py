"""Each node of a config is instantiated once in a run."""

import json
from collections import Counter
from pathlib import Path

import hydra.utils
import pytest

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.orchestration.runner import _instantiate_node
from unlearn.pipeline import context
from unlearn.pipeline.unlearn_job import unlearn_job

DEMO = ["dataset=synthetic", "model.width=2", "pretraining.epochs=1", "logger=none"]


@pytest.mark.parametrize(
    "choices",
    [
        ["method=rem"],
        ["method=rum", "score=confidence"],
        ["method=rft", "localization=salloc", "budget=0.5"],
    ],
    ids=lambda choices: choices[0],
)
def test_each_node_of_the_config_is_instantiated_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: list[str]
):
    context._load_dataset.cache_clear()
    built: Counter[str] = Counter()
    instantiate = hydra.utils.instantiate

    def count(node, **options):
        if node is not None:
            built[json.dumps(node, sort_keys=True)] += 1
        return instantiate(node, **options)

    monkeypatch.setattr(hydra.utils, "instantiate", count)
    overrides = [*DEMO, *choices, f"paths.root={tmp_path}"]
    with enable_composition([config_dir()]):
        content = to_plain_config(compose_config("unlearn", overrides, [config_dir()]))
    content.pop("tune")
    folder = tmp_path / "run"
    folder.mkdir()
    unlearn_job(
        Job(content, compute_run_id(content), folder, content["names"], _instantiate_node, True)
    )
    keys = ("dataset", "corruption", "forget_set", "model", "pretraining", "method", "evaluation")
    for key in (*keys, *(k for k in ("score", "localization") if content.get(k))):
        assert built[json.dumps(content[key], sort_keys=True)] == 1, key
    assert set(built.values()) == {1}
