"""Every option composes and builds; every method runs on the tiny task by itself."""

import contextlib
import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from unlearn.config.command_line import DETECTOR
from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.types import TrustedRequest
from unlearn.data.trusted_sets.clean_rows import CleanRows
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.localized import Localized
from unlearn.models.expansion.expanded import Expanded, remove_extra_channels
from unlearn.models.surgery import batch_norms
from unlearn.models.vit import ViT
from unlearn.pipeline.trusted_set import build_request
from unlearn.training.stacked.unlearning import StackedRun, StackedUnlearner, find_stack_obstacle
from unlearn.training.unlearning import LightningFit

CONF = Path(config_dir())
GROUPS = (
    "dataset",
    "corruption",
    "model",
    "pretraining",
    "method",
    "evaluation",
    "forget_set",
    "detector",
    "score",
)
OPTIONS = [(group, p.stem) for group in GROUPS for p in sorted((CONF / group).glob("*.yaml"))]
NEED_BATCH_NORM = ("anp", "rnp")
NEED_TRUSTED = (
    "ft_trusted", "fine_pruning", "anp", "rnp", "ft_sam", "fst", "nad", "i_bau", "sau",
)  # fmt: skip
LOCALIZED_TOO = ("cuts", "sap", "elr", "co_teaching", "divide_mix")
METHODS = [p.stem for p in sorted((CONF / "method").glob("*.yaml"))]


def composed_plain(*overrides, name="unlearn"):
    with enable_composition([config_dir()]):
        return to_plain_config(compose_config(name, list(overrides), [config_dir()]))


def build(node):
    return instantiate(node, _convert_="all")


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids="/".join)
def test_every_option_builds(group, option, tmp_path):
    ids = tmp_path / "ids.json"
    ids.write_text("[1, 2]")
    given = {"imagefolder": f"dataset.root={tmp_path}", "file": f"forget_set.path={ids}"}
    given |= {"csv": f"dataset.path={ids}", "huggingface": f"dataset.path={tmp_path}"}
    given |= {"noisy_labels": f"corruption.path={ids}"}
    given |= {"imagenet100": "dataset.classes=[cat,dog]"}
    given |= {"timm": "model.name=test_resnet", "torchvision": "model.name=squeezenet1_1"}
    given |= {"import": "model.path=torchvision.models:squeezenet1_1"}
    more = [given[option]] if option in given else []
    if option == "timm_pretrained":
        more = ["model.name=test_resnet", "model.pretrained=false"]  # nothing is to be downloaded
    if option.startswith("timm"):
        pytest.importorskip("timm")
    key = DETECTOR if group == "detector" else group
    content = composed_plain(f"{key}={option}", *more)
    made = build(content["forget_set" if group == "detector" else group])
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


@cache
def node_of(name):
    tiny = ["dataset=synthetic", "pretraining.epochs=1", "pretraining.batch_size=64"]
    node = composed_plain(f"method={name}", *tiny)["method"]
    return shortened(node)


def shortened(node):
    """Return a method's node, and those within it, with one epoch of batches that fit."""
    node = {k: shortened(v) if isinstance(v, dict) else v for k, v in node.items()}
    if node.get("epochs"):
        node["epochs"] = 1
    for key in ("max_removal_epochs", "iterations", "teacher_epochs", "recover_epochs"):
        if key in node:
            node[key] = 2
    return node | ({"batch_size": 64} if "batch_size" in node else {})


def method_of(name):
    return build(copy.deepcopy(node_of(name)))


def request_of(name, task, step=0):
    """Return what the method may see: the trusted set only if it declares that it needs one."""
    return build_request(replace(with_trusted(task), step=step), method_of(name))


def with_trusted(task):
    """Return the task with a trusted set of clean images of the retain set."""
    source = CleanRows(size=30, balanced=True, seed=0)
    every = torch.cat(task.forget)
    draw = source(
        task.train, task.truth, every, dataset=SimpleNamespace(train=task.train), held_out=None
    )
    return replace(task, trusted=draw.images)


def run(name, network, request, engine):
    fit = LightningFit(engine, augment=None, seed=3)
    return method_of(name).unlearn(copy.deepcopy(network), request, fit)


def refusal(name, network, request, engine):
    """Return what the method says if it cannot work on such a network."""
    made = method_of(name)
    if not hasattr(made, "prepare"):  # it runs other methods
        return ""
    try:
        made.check_model(network, next(request.forget.batches()).image)
        made.prepare(copy.deepcopy(network), request)
    except ValueError as error:
        return str(error)
    return ""


def grown(plain, task):
    """Return a network of the same class that was trained with example-tied dropout."""
    torch.manual_seed(0)
    twice = type(plain)(**plain.arguments | {"capacity": 0.5, "extra": 0.5})
    return trained(Expanded(twice, num_samples=len(task.train), density=0.5, seed=0), task)


def trained(network, task):
    """Take a few steps, for batch-norm statistics of real data and gradients that differ."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    network.train()
    for batch in task.train.batches(64):
        index = (batch.index,) if isinstance(network, Expanded) else ()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(batch.image, *index), batch.label).backward()
        optimizer.step()
    return network.eval()


def start(name, plain, task, engine):
    """Return a network that the method can work on: the plain one, unless it asks for another."""
    network = trained(plain, task)
    if "pretraining=etd" in refusal(name, network, request_of(name, task), engine):
        return grown(plain, task)
    return network


def sound(one, origin):
    """Check that a plain network came back, of the deployed size, with finite weights."""
    assert not isinstance(one, Expanded)
    deployed = remove_extra_channels(origin).state_dict()
    assert {k: v.shape for k, v in one.state_dict().items()} == {
        k: v.shape for k, v in deployed.items()
    }
    assert all(torch.isfinite(v.float()).all() for v in one.state_dict().values())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_repeats_and_leaves_its_request_alone(name, network, task, engine):
    request = request_of(name, task)
    before = {
        part: (getattr(request, part).image.clone(), getattr(request, part).label.clone())
        for part in ("forget", "retain")
    }
    origin = start(name, network, task, engine)
    one, two = (run(name, origin, request, engine) for _ in range(2))
    sound(one, origin)
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key
    for part, (image, label) in before.items():
        assert torch.equal(getattr(request, part).image, image)
        assert torch.equal(getattr(request, part).label, label)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_depends_on_the_truth(name, network, task, engine):
    lie = replace(
        task.truth,
        clean_label=task.truth.clean_label.flip(0),
        corrupted=task.truth.corrupted.flip(0),
    )
    origin = start(name, network, task, engine)
    task = with_trusted(task)
    honest = run(name, origin, build_request(task, method_of(name)), engine).state_dict()
    lied = build_request(replace(task, truth=lie), method_of(name))
    fooled = run(name, origin, lied, engine).state_dict()
    assert all(torch.equal(honest[k], fooled[k]) for k in honest)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_does_not_declare_it_never_sees_a_trusted_set(name, task):
    method, known = method_of(name), with_trusted(task)
    request = build_request(known, method)
    assert isinstance(request, TrustedRequest) == method.needs_trusted
    assert method.needs_trusted == (name in NEED_TRUSTED)
    if method.needs_trusted:
        assert request.trusted.index.tolist() == known.trusted.index.tolist()
        assert not method.uses_forget_set and not method.uses_retain_set
        return
    values = [*vars(request).values(), *request.records.values()]
    assert not any(value is known.trusted for value in values)
    with pytest.raises(AttributeError, match="without needs_trusted = True"):
        _ = request.trusted


class Peek(UnlearningMethod):
    """Notes what it can see."""

    seen: ClassVar[list] = []

    def prepare(self, model, request):
        self.seen.append("trusted" in vars(request))
        return model

    def needs_training(self):
        return False

    def loss(self, forward, batch):
        raise AssertionError


@pytest.mark.parametrize("needs", [False, True])
def test_wrappers_hand_a_trusted_set_to_none_but_those_that_need_it(needs, network, task, engine):
    plan = {"epochs": 1, "batch_size": 8, "optimizer": torch.optim.SGD, "schedule": None}
    peek = Peek(**plan)
    peek.needs_trusted = needs
    Peek.seen.clear()
    rum = build(copy.deepcopy(node_of("rum")) | {"base": node_of("ft_trusted")})
    assert rum.needs_trusted
    rum.base = peek
    fit = LightningFit(engine, augment=None, seed=3)
    rum.unlearn(copy.deepcopy(network), build_request(with_trusted(task), rum), fit)
    assert Peek.seen == [needs] * 3

    def localize(model, request, budget):
        Peek.seen.append("trusted" in vars(request))
        return {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}

    localize.needs_budget = False  # type: ignore[attr-defined]
    Peek.seen.clear()
    whole = Localized(peek, localizer=localize, budget=None, batch_norm="update", head=None)
    assert whole.needs_trusted == needs
    whole.unlearn(network, build_request(with_trusted(task), whole), fit)
    assert Peek.seen == [False, needs]  # the localizer, then the method


@pytest.mark.parametrize("name", [n for n in METHODS if n in NEED_TRUSTED or n in LOCALIZED_TOO])
def test_new_weights_stay_within_the_mask_of_a_localization(name, network, task, engine):
    origin = trained(network, task)
    chosen = "conv2.0.weight"
    assert chosen in dict(origin.named_parameters())

    def localize(model, request, budget):
        return {
            n: torch.full_like(p, n == chosen, dtype=torch.bool)
            for n, p in model.named_parameters()
        }

    localize.needs_budget = False  # type: ignore[attr-defined]
    method = Localized(
        method_of(name), localizer=localize, budget=None, batch_norm="freeze", head="masked"
    )
    fit = LightningFit(engine, augment=None, seed=3)
    healed = method.unlearn(copy.deepcopy(origin), build_request(with_trusted(task), method), fit)
    for key, value in healed.named_parameters():
        assert torch.equal(value, origin.get_parameter(key)) or key == chosen, key


@pytest.mark.parametrize("name", METHODS)
def test_every_method_starts_from_a_network_with_example_tied_dropout(name, network, task, engine):
    origin = grown(network, task)
    sound(run(name, origin, request_of(name, task), engine), origin)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_works_without_batch_norm(name, task, engine):
    torch.manual_seed(0)
    vit = ViT(
        in_channels=1, image_size=12, num_classes=3, width=8, depth=1, heads=2, head_width=4,
        mlp_width=8, patch_size=4,
    )  # fmt: skip
    assert not batch_norms(vit)
    if name in NEED_BATCH_NORM:
        assert "ViT has no batch norm" in refusal(name, vit, request_of(name, task), engine)
        return
    origin = start(name, vit, task, engine)
    sound(run(name, origin, request_of(name, task), engine), origin)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_network_of_ones_own_or_says_why_not(name, task, engine):
    torch.manual_seed(0)
    own = trained(
        nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3)), task
    )
    reason = refusal(name, own, request_of(name, task), engine)
    if reason:  # it needs extra channels, which only the networks of this package have
        assert "Sequential" in reason or "pretraining=etd" in reason
        return
    sound(run(name, own, request_of(name, task), engine), own)


def test_a_network_of_ones_own_is_refused_by_name_and_reason(task, engine):
    own = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    reasons = {name: refusal(name, own, request_of(name, task), engine) for name in METHODS}
    assert "Sequential cannot be expanded: the channels of layer '1'" in reasons["rem"]
    assert "choose pretraining=etd" in reasons["etd"]
    assert not any(reasons[name] for name in ("finetune", "npo", "original", "retrain", "ssd"))


def two_requests(task):
    """Return the task with two requests, the second with the last sample of the training set."""
    assert len(task.train) == 200
    return replace(task, forget=(torch.arange(0, 190, 19), torch.arange(9, 200, 19)))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers_two_requests_in_a_row(name, network, task, engine):
    origin = start(name, network, task, engine)
    both = two_requests(task)
    model = remove_extra_channels(run(name, origin, request_of(name, both), engine))
    sound(run(name, model, request_of(name, both, 1), engine), origin)


@pytest.mark.parametrize("retain", ["cumulative", "final"])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "rum"])
def test_every_method_unlearns_the_parts_of_rum(name, retain, network, task, engine):
    origin = start(name, network, task, engine)
    rum = build(copy.deepcopy(node_of("rum")) | {"base": node_of(name), "retain": retain})
    fit = LightningFit(engine, augment=None, seed=3)
    sound(rum.unlearn(copy.deepcopy(origin), request_of(name, task), fit), origin)
    assert len(rum.notes["methods"]) == 3


@pytest.mark.parametrize(
    "name", [name for name in METHODS if find_stack_obstacle(method_of(name)) is None]
)
def test_a_method_that_says_so_is_stacked_without_a_change(name, network, task, engine):
    origin = start(name, network, task, engine)
    forget = task.forget_indices()
    tasks = [task, replace(task, forget=(torch.cat([forget[1:], forget[:1] + 1]).sort().values,))]
    fits = [LightningFit(engine, augment=None, seed=seed) for seed in (3, 4)]
    alone = [
        method_of(name).unlearn(copy.deepcopy(origin), request_of(name, t), fit)
        for t, fit in zip(tasks, fits, strict=True)
    ]
    pairs = zip(tasks, fits, strict=True)
    courses = [
        StackedRun(method_of(name), copy.deepcopy(origin), request_of(name, t), fit)
        for t, fit in pairs
    ]
    assert courses[0].kind == courses[1].kind  # so the first step is made together
    StackedUnlearner(courses, contextlib.nullcontext).run_all()
    for one, course in zip(alone, courses, strict=True):
        assert course.error is None
        healed = course.finish_run()
        assert healed is not None
        for key, value in one.state_dict().items():
            torch.testing.assert_close(healed.state_dict()[key], value, rtol=1e-3, atol=1e-3)
