"""Every option composes and builds; every method runs on the tiny task by itself."""

import copy
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from unlearn.compose import composed, composing
from unlearn.config import config_dir, plain
from unlearn.models.expansion import Expanded
from unlearn.task import Task
from unlearn.training.unlearning import LightningFit

CONF = Path(config_dir())
GROUPS = ("dataset", "corruption", "model", "pretraining", "method", "evaluation", "forget_set")
OPTIONS = [(group, p.stem) for group in GROUPS for p in sorted((CONF / group).glob("*.yaml"))]
METHODS = [p.stem for p in sorted((CONF / "method").glob("*.yaml"))]


def composed_plain(*overrides, name="unlearn"):
    with composing([config_dir()]):
        return plain(composed(name, list(overrides), [config_dir()]))


def build(node):
    return instantiate(node, _convert_="all")


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids="/".join)
def test_every_option_builds(group, option, tmp_path):
    more = [f"dataset.root={tmp_path}"] if option == "imagefolder" else []
    content = composed_plain(f"{group}={option}", *more)
    made = build(content[group])
    if group == "model":
        net = made(in_channels=3, image_size=32, num_classes=4).eval()
        assert net(torch.randn(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("group", "option"),
    [(g.name, p.stem) for g in sorted(CONF.iterdir()) if g.is_dir() and g.name != "hydra"
     for p in sorted(g.glob("*.yaml")) if g.name in ("logger", "trainer", "paths", "discovery_rate")],
)  # fmt: skip
def test_every_other_option_composes(group, option):
    assert composed_plain(f"{group}={option}")["seed"] == 0


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_composes(path):
    names = ("evaluate",) if "report" in path.stem else ("unlearn", "train")
    for name in names[:1]:
        composed_plain(f"experiment={path.stem}", name=name)


def method_of(name):
    tiny = ["dataset=synthetic", "pretraining.epochs=1", "pretraining.batch_size=64"]
    node = composed_plain(f"method={name}", *tiny)["method"]
    if node.get("epochs"):
        node["epochs"] = 1
    if "max_removal_epochs" in node:
        node["max_removal_epochs"] = 2
    return build(node | ({"batch_size": 64} if "batch_size" in node else {}))


def run(name, network, task: Task, engine):
    method = method_of(name)
    fit = LightningFit(engine, augment=None, seed=3)
    return method.unlearn(copy.deepcopy(network), task.request(), fit)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_repeats_and_leaves_its_request_alone(name, network, task, engine):
    request = task.request()
    before = {
        k: (v.image.clone(), v.label.clone()) for k, v in vars(request).items() if k != "records"
    }
    network.train()
    for batch in task.train.batches(64):  # batch-norm statistics of real data
        network(batch.image)
    one, two = run(name, network, task, engine), run(name, network, task, engine)
    assert not isinstance(one, Expanded)
    assert {k: v.shape for k, v in one.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }
    for key, value in one.state_dict().items():
        assert torch.isfinite(value.float()).all()
        assert torch.equal(value, two.state_dict()[key]), key
    after = task.request()
    for part, (image, label) in before.items():
        assert torch.equal(getattr(after, part).image, image)
        assert torch.equal(getattr(after, part).label, label)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_depends_on_the_truth(name, network, task, engine):
    from dataclasses import replace

    lie = replace(
        task.truth,
        clean_label=task.truth.clean_label.flip(0),
        corrupted=task.truth.corrupted.flip(0),
    )
    honest = run(name, network, task, engine).state_dict()
    fooled = run(name, network, replace(task, truth=lie), engine).state_dict()
    assert all(torch.equal(honest[k], fooled[k]) for k in honest)
