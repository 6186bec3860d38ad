"""Models that began from given weights: retraining starts there, and budgets follow its cost."""

import copy
import json
import logging

import pytest
import torch
from torch import nn

from unlearn import heal
from unlearn.config.checkpoint_input import add_training_defaults
from unlearn.core.job import original_identity
from unlearn.methods.finetune import Finetune
from unlearn.methods.rem import REM
from unlearn.models.initial_weights import start_from
from unlearn.models.surgery import draw_unrelated_network, reinitialize_network
from unlearn.pipeline.default_budget import compute_cost, fit_budget
from unlearn.pipeline.unlearn_job import unlearn_job
from unlearn.training.schedules import Constant


def net(outputs=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, outputs))  # fmt: skip


def test_a_network_that_is_built_anew_starts_from_its_initial_weights():
    torch.manual_seed(0)
    network, began = net(), net(outputs=10)
    absent = start_from(network, began.state_dict(), "init")
    assert absent == ["4.weight", "4.bias"]  # a head of ten classes
    trained = copy.deepcopy(network)
    nn.init.zeros_(trained[0].weight)
    for draw in (reinitialize_network, draw_unrelated_network):
        new = draw(trained, 3)
        assert torch.equal(new[0].weight, began[0].weight)
        assert not torch.equal(new[4].weight, trained[4].weight)
        assert torch.equal(draw(new, 3)[0].weight, began[0].weight)  # and so on
    with pytest.raises(ValueError, match="init holds 0 of 4 tensors of Sequential, too few"):
        start_from(net(), {"fc.weight": torch.ones(3)}, "init")


def test_retraining_in_python_starts_from_the_given_weights(trained, data, tmp_path):
    began = copy.deepcopy(trained)
    for layer in began:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    torch.save({"state_dict": began.state_dict()}, tmp_path / "init.pt")
    given = {"retain": data, "forget": [20, 21], "method": "retrain", "device": "cpu"}
    still = ["method.epochs=0"]  # what it starts from
    fresh = heal(trained, **given, overrides=still).model
    assert not torch.equal(fresh[0].weight, began[0].weight)
    for init in (tmp_path / "init.pt", began.state_dict(), began):
        model = heal(trained, **given, overrides=still, init=init).model
        assert torch.equal(model[0].weight, began[0].weight)
        assert torch.equal(model[7].weight, began[7].weight)
    config = heal(trained, **given, overrides=still, init=began).record.config
    assert (config["pretraining"]["epochs"], config["pretraining"]["batch_size"]) == (6, 32)
    with pytest.raises(ValueError, match="init: no file"):
        heal(trained, **given, init=tmp_path / "none.pt")


def test_init_on_the_command_line(words, job, trained, tmp_path, caplog):
    torch.save(trained.state_dict(), tmp_path / "init.pt")
    own = [w for w in words if not w.startswith("method")]
    init = f"init={tmp_path / 'init.pt'}"
    made = job(*own, init, "method=retrain", "pretraining.epochs=1")
    assert made.run_id != job(*own, "method=retrain", "pretraining.epochs=1").run_id
    with caplog.at_level(logging.INFO):
        unlearn_job(made)
    assert f"trainings start from {tmp_path / 'init.pt'}" in caplog.text
    row = json.loads((made.folder / "row-0.json").read_text())
    assert row["test/accuracy"] > 0.8  # one epoch from random weights gives far less


def test_initial_weights_are_part_of_a_cached_model_s_identity(tmp_path):
    config = {"validation": None, "trainer": {"devices": 1}, "dataset": {}, "seeds": {
        "data": 0, "train": 0, "mask": 0}, "corruption": {}, "corrupted": 0.1, "model": {},
        "pretraining": {}, "init": None}  # fmt: skip
    assert "init" not in original_identity(config)
    found = []
    for text in ("a", "b"):
        (tmp_path / "init.pt").write_text(text)
        found.append(original_identity(config | {"init": str(tmp_path / "init.pt")})["init"])
    assert found[0] != found[1]


def test_the_recipe_of_fine_tuning_is_assumed_unless_it_is_given():
    recipe = ["pretraining.epochs=6", "pretraining.batch_size=32", "pretraining.optimizer.lr=0.01"]
    for began in ("init=a.pt", "model=timm_pretrained", "model.pretrained=true"):
        assert add_training_defaults([began])[1:] == [*recipe, "fit_budget=true"]
    given = ["init=a.pt", "pretraining.epochs=3"]
    assert add_training_defaults(given) == [*given, "fit_budget=true"]
    assert add_training_defaults(["method.epochs=3"])[-1] == "fit_budget=false"
    for elsewhere in ("experiment=x", "method_defaults=y"):
        assert add_training_defaults([elsewhere]) == [elsewhere]


@pytest.fixture
def method():
    return Finetune(epochs=10, batch_size=512, optimizer=torch.optim.SGD, schedule=Constant())


def test_default_budgets_are_at_most_one_retraining(method, task):
    request = task.request()
    assert compute_cost(method, request, 40, 10) == pytest.approx(0.25)
    assert fit_budget(method, request, 40).epochs == 10  # as published
    small = fit_budget(method, request, 6)
    assert (small.epochs, small.batch_size, small.cost) == (6, 16, pytest.approx(1.0))
    assert REM.step_cost > 1


def test_budgets_are_said_and_kept(trained, data, caplog):
    given = {"retain": data, "forget": [20, 21], "method": "finetune", "device": "cpu"}
    with caplog.at_level(logging.INFO):
        result = heal(trained, **given, overrides=["pretraining.epochs=2"])
    assert (
        "budget: at most 2 passes, batches of 16, about 1 times one retraining, 2 ep" in caplog.text
    )
    assert result.metrics["method/cost"] == 1.0
    assert result.metrics["images_seen"] == 2 * 58
    caplog.clear()
    with caplog.at_level(logging.INFO):
        own = {"epochs": 4, "batch_size": 20}
        result = heal(trained, **given, overrides=["pretraining.epochs=2"], options=own)
    assert "budget: at most 4 passes, batches of 20, about 2 times one retraining" in caplog.text
    assert result.metrics["images_seen"] == 4 * 58
