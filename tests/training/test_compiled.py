"""``trainer.compile=true`` breaks no method."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.training.unlearning import LightningFit

REPOSITORY = Path(__file__).resolve().parents[2]
METHODS = sorted(p.stem for p in (REPOSITORY / "conf" / "method").glob("*.yaml"))


@pytest.mark.parametrize(("form", "times"), [("weight_saliency", 1), ("input_saliency", 0)])
def test_a_loss_that_takes_gradients_runs_uncompiled(
    form, times, network, task, engine, monkeypatch
):
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    with enable_composition([config_dir()]):
        words = ["dataset=synthetic", "method=salun", f"method.form={form}", "method.epochs=1"]
        node = to_plain_config(compose_config("unlearn", words, [config_dir()]))["method"]
    fit = LightningFit(replace(engine, compile=True), augment=None, seed=0)
    instantiate(node, _convert_="all").unlearn(copy.deepcopy(network), task.request(), fit)
    assert len(compiled) == times


@pytest.mark.slow
def test_every_method_runs_compiled(tmp_path):
    methods = ",".join(name for name in METHODS if name not in ("etd", "rum"))
    options = (
        "dataset=digits", "dataset.num_train=200", "dataset.num_test=100", "model.width=4",
        "pretraining.epochs=2", "corrupted=30", "corruption=random_label", "logger=none",
        "trainer.progress=false", "trainer.compile=true",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "unlearn.py", "--multirun", f"method={methods}", *options],
        cwd=REPOSITORY, env={**os.environ, "UNLEARN_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert "recompile_limit" not in said and "Warning" not in said
    rows = [json.loads(p.read_text()) for p in (tmp_path / "results").glob("*/row-0.json")]
    assert sorted(row["method"] for row in rows) == sorted(methods.split(","))
