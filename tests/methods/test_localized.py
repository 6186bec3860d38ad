"""What does not lie in the mask stays bit for bit, whatever the method, optimizer and network."""

import copy
import json
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.methods.finetune import Finetune
from unlearn.methods.localization.all_parameters import Everything
from unlearn.methods.localization.mask import Mask, count_allowed_parameters
from unlearn.methods.localized import Localized
from unlearn.methods.retrain import Retrain
from unlearn.methods.rft import RFT, compute_reset_values
from unlearn.models.surgery import (
    draw_unrelated_network,
    iterate_shuffled_images,
    recalibrate_batch_norm,
)
from unlearn.models.vit import ViT
from unlearn.pipeline.context import build_method
from unlearn.pipeline.run_record import _display_names
from unlearn.pipeline.trusted_set import build_request

CONF = Path(config_dir())
OPTIMIZERS = sorted(p.stem for p in (CONF / "optimizer").glob("*.yaml"))
METHODS = sorted(p.stem for p in (CONF / "method").glob("*.yaml"))
TINY = ["dataset=synthetic", "pretraining.epochs=1", "pretraining.batch_size=64"]
RESET = {"reset_to": "fresh", "keep": 0.7, "seed": 0, "original_seed": 0}


@cache
def composed_plain(*overrides):
    with enable_composition([config_dir()]):
        return to_plain_config(compose_config("unlearn", [*TINY, *overrides], [config_dir()]))


def job(*overrides):
    content = copy.deepcopy(composed_plain(*overrides))
    node = content["method"]
    node |= {k: v for k, v in (("epochs", 1), ("batch_size", 64)) if node.get(k)}
    return Job(content, "r0", Path(), content["names"], lambda n: instantiate(n, _convert_="all"))


class Given:
    """Chooses what it is told to."""

    needs_budget = False

    def __init__(self, masks):
        self.masks = masks

    def __call__(self, model, request, budget):
        return self.masks


def half(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in model.named_parameters()}


def localized(method, masks, batch_norm="update", head=None):
    localizer = Given(masks)
    return Localized(method, localizer=localizer, budget=None, batch_norm=batch_norm, head=head)


def still(before, after, masks):
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    assert all(torch.equal(old[n][~m], new[n][~m]) for n, m in masks.items())
    return sum(int((old[n] != new[n]).sum()) for n in masks)


@pytest.fixture
def small_vit():
    torch.manual_seed(0)
    return ViT(
        in_channels=1, image_size=12, num_classes=3, width=8, depth=1, heads=2, head_width=4,
        mlp_width=8, patch_size=4,
    )  # fmt: skip


@pytest.fixture(params=["network", "small_vit"])
def either(request):
    return request.getfixturevalue(request.param)


class Watched(Finetune):
    """Looks, at every step, whether what is to stay is where it was at the start."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        now = {n: p.detach().clone() for n, p in pl_module.model.named_parameters()}
        self.first = getattr(self, "first", now)
        assert all(torch.equal(now[n][~m], self.first[n][~m]) for n, m in self.masks.items())
        self.steps = getattr(self, "steps", 0) + 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_leaves_the_rest_bit_for_bit(optimizer, either, task, recipe, fit):
    node = yaml.safe_load((CONF / "optimizer" / f"{optimizer}.yaml").read_text())
    own = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
    node |= {k: v for k, v in own.items() if k in node}
    plan = recipe(batch_size=64) | {"optimizer": instantiate(node, _convert_="all")}
    before, masks = copy.deepcopy(either), half(either)
    method = Watched(**plan)
    method.masks = masks
    after = localized(method, masks).unlearn(either, task.request(), fit)
    assert still(before, after, masks) > 0.8 * Mask(masks).count_movable()
    assert method.steps == 6  # two epochs of 190 samples


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_localized_or_says_why_not(name, network, trusted, fit):
    if name == "del":
        method = build_method(job("method=del", "budget=0.2"))
    else:
        try:
            words = (f"method={name}", "localization=salloc", "budget=0.2", "trusted=clean_rows")
            method = build_method(job(*words))
        except ValueError as error:
            assert "set the localization of those" in str(error) or (
                name in ("rem", "etd") and "changes the network's shape" in str(error)
            )  # before anything is trained
            return
    before = copy.deepcopy(network)
    after = method.unlearn(network, build_request(trusted, method), fit)
    masks = dict(method.moving)
    assert Mask(masks).compute_movable_share() < 0.5
    moved = still(before, after, masks)
    assert moved > 0 or name in (
        "original",
        "npo",
        "gradient_ascent",
        "ssd",
        "neggrad_plus",
        "potion",
        "anp",  # these find nothing to change in a network that was not trained
        "rnp",
        "cuts",
    )
    assert all(p.requires_grad for p in after.parameters())


def test_running_statistics_move_stay_or_are_computed_anew(network, task, recipe, fit):
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    after = {}
    for mode in ("update", "freeze", "recalibrate"):
        method = localized(Finetune(**recipe(batch_size=64)), half(network), batch_norm=mode)
        after[mode] = method.unlearn(copy.deepcopy(network), task.request(), fit)
    assert all(not torch.equal(after["update"].state_dict()[k], v) for k, v in before.items())
    assert all(torch.equal(after["freeze"].state_dict()[k], v) for k, v in before.items())
    again = copy.deepcopy(after["recalibrate"])
    recalibrate_batch_norm(again, iterate_shuffled_images(task.request().retain, 64, seed=0))
    for key in before:
        assert torch.equal(again.state_dict()[key], after["recalibrate"].state_dict()[key])
        assert not torch.equal(again.state_dict()[key], after["update"].state_dict()[key])


def test_without_training_rft_resets_the_mask_and_nothing_else(either, task, fit, recipe):
    before, masks = copy.deepcopy(either), half(either)
    new = dict(draw_unrelated_network(before, 0).named_parameters())
    reset = RFT(**RESET, **recipe(epochs=0))
    after = localized(reset, masks).unlearn(either, task.request(), fit)
    for name, parameter in after.named_parameters():
        old = dict(before.named_parameters())[name]
        assert torch.equal(parameter, torch.where(masks[name], new[name], old)), name
    buffers = dict(before.named_buffers())
    assert all(torch.equal(b, buffers[n]) for n, b in after.named_buffers())


@pytest.mark.parametrize(("mode", "moves"), [(None, "both"), ("masked", "mask"), ("only", "head")])
def test_the_head_learns_as_it_is_told(mode, moves, either, task, fit, recipe):
    masks = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in either.named_parameters()}
    first = next(iter(masks))
    masks[first].view(-1)[0] = True
    before, at_start = copy.deepcopy(either), RFT(**RESET | {"reset_to": "none"}, **recipe())
    method = localized(at_start, masks, head=mode)
    after = method.unlearn(either, task.request(), fit)
    old = dict(before.named_parameters())
    changed = {n for n, p in after.named_parameters() if not torch.equal(p, old[n])}
    head = {n for n in masks if n.startswith(("fc", "norm"))}
    assert changed == {"both": {first} | head, "mask": {first}, "head": head}[moves]
    assert method.mask.count_movable() == 1  # the head is not charged to the budget


def test_named_parameters_may_move_besides_the_mask(either, task, fit, recipe):
    masks = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in either.named_parameters()}
    names = list(masks)
    masks[names[0]].view(-1)[0] = True
    before = dict(copy.deepcopy(either).named_parameters())
    options = {"budget": None, "batch_norm": "update", "head": None}
    method = Localized(
        Finetune(**recipe()), localizer=Given(masks), trainable=["*.bias"], **options
    )
    after = method.unlearn(either, task.request(), fit)
    changed = {n for n, p in after.named_parameters() if not torch.equal(p, before[n])}
    free = {n for n in names if n.endswith(".bias")}
    assert {names[0]} < changed <= {names[0]} | free and len(changed) > 2
    assert method.mask.count_movable() == 1
    own = build_method(job("method=del", "mask_trainable=['*.bias']"))
    assert own.trainable == ["*.bias"]
    wrong = Localized(Finetune(**recipe()), localizer=Given(masks), trainable=["x*"], **options)
    with pytest.raises(ValueError, match=r"mask_trainable: no parameter matches 'x\*'"):
        wrong.prepare(either, task.request())


def test_rft_of_everything_is_retraining(small_vit, task, fit, recipe):
    plan, net = recipe(batch_size=64), copy.deepcopy(small_vit)
    whole = Localized(
        RFT(**RESET, **plan), localizer=Everything(), budget=None, batch_norm="update", head=None
    ).unlearn(net, task.request(), fit)
    oracle = Retrain(seed=1_234_567_891, **plan).unlearn(small_vit, task.request(), fit)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, oracle.state_dict()[key]), key


def test_reset_values_by_hand(network):
    options = {"keep": 0.7, "seed": 3, "original_seed": 0}
    old = {n: p.detach() for n, p in network.named_parameters()}
    zero, none, noise, first = (
        compute_reset_values(network, to, **options)
        for to in ("zero", "none", "perturb", "original_init")
    )
    assert all(not zero[n].any() and torch.equal(none[n], old[n]) for n in old)
    assert all(torch.equal(first[n], old[n]) for n in old)  # this network was never trained
    drawn = (noise["conv1.0.weight"] - 0.7 * old["conv1.0.weight"]) / 0.3
    expected = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(drawn, expected, atol=1e-5)
    fresh = compute_reset_values(network, "fresh", **options)
    assert not torch.equal(fresh["conv1.0.weight"], old["conv1.0.weight"])
    assert bool((fresh["conv1.1.weight"] == 1).all() and (fresh["conv1.1.bias"] == 0).all())


def test_the_row_says_what_moved(network, task, fit, recipe):
    method = build_method(job("method=del", "budget=0.3"))
    method.epochs = 0
    method.prepare(copy.deepcopy(network), task.request())
    notes, total = method.notes, sum(p.numel() for p in network.parameters())
    assert (
        notes["localization/parameters"]
        == method.mask.count_movable()
        <= count_allowed_parameters(total, 0.3)
    )
    assert notes["localization/share_global"] == method.mask.count_movable() / total
    assert notes["localization/budget"] == 0.3
    layers = json.loads(notes["localization/layers"])
    assert next(iter(layers)) == "conv1.0" and list(layers)[-1] == "fc" and len(layers) == 9
    own = [n for n in method.mask if n.startswith("conv4.")]
    count, size = (sum(f(method.mask[n]) for n in own) for f in (torch.sum, torch.numel))
    assert layers["conv4.0"] == pytest.approx(int(count) / size, abs=1e-6)
    assert method.mask.facts["strategy"] == "WeightedGradient"


def test_budget_and_localization_need_each_other():
    assert build_method(job("method=del")).budget == 0.3  # the paper's
    assert build_method(job("method=del", "budget=0.1")).budget == 0.1
    assert type(build_method(job("method=finetune"))) is Finetune
    for overrides, text in (
        (["method=finetune", "budget=0.2"], "need a localization"),
        (["method=finetune", "mask_head=only"], "need a localization"),
        (["method=finetune", "localization=salloc"], "budget is missing"),
        (["method=del", "localization=salloc", "budget=0.2"], "DEL has its own localization"),
    ):
        with pytest.raises(ValueError, match=text):
            build_method(job(*overrides))


def test_bad_options_are_refused_by_key(network, task, recipe):
    plan = Finetune(**recipe())
    for key, value in (("batch_norm", "off"), ("head", "never")):
        with pytest.raises(ValueError, match=f"mask_{key} must be one of"):
            localized(plan, half(network), **{key: value})
    with pytest.raises(ValueError, match=r"reset_to must be one of fresh, original_init"):
        RFT(**RESET | {"reset_to": "old"}, **recipe())
    with pytest.raises(ValueError, match="keep must be in"):
        RFT(**RESET | {"keep": 2}, **recipe())
    whole = Localized(plan, localizer=Everything(), budget=0.5, batch_norm="update", head=None)
    with pytest.raises(ValueError, match=r"budget=0.5 allows at most"):
        whole.prepare(network, task.request())


def test_a_localized_run_has_a_name_of_its_own():
    assert _display_names(job("method=finetune"))["method"] == "finetune"
    one = job("method=neggrad_plus", "localization=salloc", "budget=0.2")
    assert _display_names(one)["method"] == "neggrad_plus(salloc 0.2)"
    assert _display_names(job("method=del", "budget=0.2"))["method"] == "del(0.2)"
