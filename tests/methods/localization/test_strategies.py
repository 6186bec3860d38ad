"""What every strategy keeps to, and what each is by itself."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config as plain_config
from unlearn.config.registration import config_dir
from unlearn.data.datasets.augmentation import Augment
from unlearn.methods.localization.critical_memorization import add_noise, critical_objective
from unlearn.methods.localization.mask import Mask, count_allowed_parameters
from unlearn.methods.localization.mean_gradients import compute_mean_gradient
from unlearn.methods.localization.random_matched import draw_matched_mask
from unlearn.methods.localization.retain_contrast import compute_score_ratio
from unlearn.models.inference import compute_logits
from unlearn.models.layer_groups import group_by_layer
from unlearn.models.layers import get_trainable_parameters
from unlearn.models.vit import ViT

OPTIONS = sorted(p.stem for p in (Path(config_dir()) / "localization").glob("*.yaml"))
BUDGETS = (0.01, 0.1, 0.3, 0.5, 1.0)
SPENDING = [n for n in OPTIONS if n not in ("none", "saved", "critical_memorization")]
WHOLE = [
    "channel_weighted_gradient", "channel_weighted_gradient_all", "channel_gradient", "magnitude",
    "retain_contrast",
]  # fmt: skip
EXACT = ["salloc", "weighted_gradient", "weighted_gradient_all", "random"]


def total(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", SPENDING)
def test_a_budget_is_kept_and_nested(name, strategy, net, asked):
    request, before = asked, None
    for budget in BUDGETS:
        limit = count_allowed_parameters(total(net), budget)
        try:
            mask = Mask(strategy(name)(net, request, budget))
        except ValueError as error:  # a small network's first unit may be larger
            assert f"budget of {limit} parameters is less than the first" in str(error)
            continue
        mask.check_matches_model(net)
        assert 0 < mask.count_movable() <= limit
        if name in EXACT:
            assert mask.count_movable() == limit
        if before is not None and "matched" not in name:
            assert before.intersection(mask).count_movable() == before.count_movable()
        before = mask
    assert before is not None and before.compute_movable_share() == 1  # a budget of 1 is everything


@pytest.mark.parametrize("name", WHOLE)
def test_channels_are_taken_whole(name, strategy, net, asked):
    mask = strategy(name)(net, asked, 0.5)
    rows = torch.cat([m.flatten(1).float().mean(1) for m in mask.values() if m.ndim > 1])
    assert set(rows.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", [n for n in OPTIONS if n != "saved"])
def test_a_strategy_leaves_the_model_alone_and_repeats(name, strategy, net, asked):
    net.train()
    next(net.children()).eval()
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    state = copy.deepcopy(net.state_dict())
    modes = [m.training for m in net.modules()]
    one, two = (strategy(name)(net, asked, 1.0 if name == "none" else 0.5) for _ in "ab")
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert modes == [m.training for m in net.modules()]
    grads = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    assert list(grads) == ["fc.weight"] and bool((grads["fc.weight"] == 1).all())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m._forward_pre_hooks for m in net.modules())


@pytest.mark.numeric
def test_the_gradient_is_that_of_the_mean_loss_whatever_the_batch_size(net, asked):
    data = asked.retain
    batch = next(data.batches(len(data)))
    loss = F.cross_entropy(net(batch.image), batch.label)
    names = list(get_trainable_parameters(net))
    expected = dict(zip(names, torch.autograd.grad(loss, list(net.parameters())), strict=True))
    scale = max(slope.abs().max().item() for slope in expected.values())
    for size in (1, 7, 64):
        for name, slope in compute_mean_gradient(net, data, batch_size=size).items():
            # sums in another order round differently
            assert torch.allclose(slope, expected[name], rtol=1e-3, atol=1e-3 * scale), name


@pytest.mark.numeric
def test_absolute_sums_and_the_reference_codes_loader(resnet, asked):
    data = asked.retain
    signed = compute_mean_gradient(resnet, data, batch_size=50)
    absolute = compute_mean_gradient(resnet, data, batch_size=50, accumulate="absolute")
    parts = [
        compute_mean_gradient(resnet, data.rows(r), batch_size=50)
        for r in torch.arange(180).split(50)
    ]
    by_hand = (
        sum(
            len(r) * p["fc.weight"].abs()
            for r, p in zip(torch.arange(180).split(50), parts, strict=True)
        )
        / 180
    )
    assert torch.allclose(absolute["fc.weight"], by_hand, rtol=1e-4, atol=1e-7)
    assert bool((absolute["fc.weight"] >= signed["fc.weight"].abs() - 1e-7).all())
    dropped = compute_mean_gradient(resnet, data, batch_size=50, drop_last=True)
    first = compute_mean_gradient(resnet, data.rows(torch.arange(150)), batch_size=50)
    assert torch.allclose(dropped["fc.weight"], first["fc.weight"])
    with pytest.raises(ValueError, match="drop_last leaves none of 180"):
        compute_mean_gradient(resnet, data, batch_size=200, drop_last=True)


@pytest.mark.numeric
def test_salloc_and_weighted_gradients_take_the_largest(strategy, resnet, asked):
    request = asked
    slope = compute_mean_gradient(resnet, request.forget, batch_size=128)
    weight = dict(resnet.named_parameters())
    for name, score in (
        ("salloc", {n: g.abs() for n, g in slope.items()}),
        ("weighted_gradient", {n: (g * weight[n]).abs().detach() for n, g in slope.items()}),
    ):
        flat = torch.cat([s.flatten() for s in score.values()])
        mask = strategy(name)(resnet, request, 0.2)
        chosen = torch.cat([m.flatten() for m in mask.values()])
        assert flat[chosen].min() >= flat[~chosen].max()


def test_data_decide_which_set_is_looked_at(strategy, resnet, asked):
    request = asked
    masks = {d: Mask(strategy("salloc", data=d)(resnet, request, 0.1)) for d in ("forget", "all")}
    assert masks["forget"].compute_jaccard_overlap(masks["all"])[""] < 0.9
    with pytest.raises(ValueError, match=r"localization.data must be one of forget, retain, all"):
        strategy("salloc", data="test")


def test_exclusions_are_structural_and_the_budget_can_be_of_the_rest(strategy, net, asked):
    request = asked
    mask = strategy("salloc", exclude=["norm", "head", "*.bias"])(net, request, 0.5)
    norms = [n for n, m in net.named_modules() if "norm" in type(m).__name__.lower()]
    assert norms and not any(mask[f"{n}.weight"].any() for n in norms)
    assert not mask["fc.weight"].any() and not any(m.any() for n, m in mask.items() if "bias" in n)
    eligible = sum(
        p.numel() for n, p in net.named_parameters()
        if not n.startswith("fc") and n.rpartition(".")[0] not in norms and "bias" not in n
    )  # fmt: skip
    kinds = {"exclude": ["norm", "head", "*.bias"], "count_base": "eligible"}
    mask = Mask(strategy("salloc", **kinds)(net, request, 0.5))
    assert mask.count_movable() == count_allowed_parameters(eligible, 0.5)
    with pytest.raises(ValueError, match="leaves no parameter"):
        strategy("salloc", exclude=["*"])(net, request, 0.5)


def test_norms_and_biases_may_follow_their_channel(strategy, resnet, asked):
    mask = strategy("channel_weighted_gradient", tie_1d=True)(resnet, asked, 0.5)
    for conv, norm in (("conv1.0", "conv1.1"), ("res1.first.0", "res1.first.1")):
        rows = mask[f"{conv}.weight"].flatten(1).any(1)
        for name in (f"{conv}.bias", f"{norm}.weight", f"{norm}.bias"):
            assert torch.equal(mask[name], rows), name
    loose = strategy("channel_weighted_gradient")(resnet, asked, 0.5)
    norms = [n for n in loose if n.endswith(".1.weight")]
    rows = [loose[n.replace(".1.", ".0.")].flatten(1).any(1) for n in norms]
    assert any(not torch.equal(loose[n], r) for n, r in zip(norms, rows, strict=True))


@pytest.mark.parametrize("name", ["weighted_gradient", "magnitude", "random"])
def test_layers_may_be_chosen_as_a_whole(name, strategy, net, asked):
    mask = Mask(strategy(name, granularity="layer", fill="whole")(net, asked, 0.9))
    shares = mask.compute_group_shares(group_by_layer(net, next(asked.forget.batches()).image))
    assert set(shares.values()) == {0.0, 1.0}


def test_attention_heads_are_taken_as_a_whole(strategy, net, asked):
    choose = strategy("channel_weighted_gradient", granularity="head")
    if type(net) is not ViT:
        with pytest.raises(ValueError, match="granularity=head needs attention"):
            choose(net, asked, 0.5)
        return
    seen = set()
    for budget in (0.2, 0.4, 0.6, 0.8):
        mask = choose(net, asked, budget)
        for block in range(2):
            rows = mask[f"blocks.{block}.attention.qkv.weight"].flatten(1).float().mean(1)
            parts = rows.view(3, 2, 8)  # q k v, heads, width of a head
            assert all(len(set(parts[:, i].flatten().tolist())) == 1 for i in range(2))
            seen |= set(rows.tolist())
    assert seen == {0.0, 1.0}


def test_the_images_may_be_changed_as_in_training(strategy, resnet, asked):
    mirror = Augment(crop_padding=0, flip_rate=1.0, cutout=0)
    flipped = replace(asked.forget, image=asked.forget.image.flip(-1))
    direct = strategy("salloc")(resnet, type(asked)(flipped, asked.retain), 0.2)
    node = {"_target_": "unlearn.data.datasets.augmentation.Augment", **vars(mirror)}
    through = strategy("salloc", augment=node)(resnet, asked, 0.2)
    assert all(torch.equal(direct[n], through[n]) for n in direct)
    plain = Mask(strategy("salloc")(resnet, asked, 0.2))
    assert plain.compute_jaccard_overlap(Mask(through))[""] < 1
    with enable_composition([config_dir()]):
        asks = ["localization=salloc", "localization.augment=${dataset.augment}"]
        made = plain_config(compose_config("unlearn", asks, [config_dir()]))
    assert (
        made["localization"]["augment"]["_target_"] == "unlearn.data.datasets.augmentation.Augment"
    )


def test_random_channels_match_another_strategy_layer_by_layer(strategy, net, asked):
    request = asked
    reference = Mask(strategy("channel_weighted_gradient")(net, request, 0.5))
    mask = Mask(strategy("random_channel_matched")(net, request, 0.5))
    assert (
        mask.count_movable_by_parameter() == reference.count_movable_by_parameter()
    )  # whole channels there, so no overshoot here
    assert 0.1 < mask.compute_jaccard_overlap(reference)[""] < 0.95
    other = Mask(strategy("random_channel_matched", seed=1)(net, request, 0.5))
    assert mask.compute_jaccard_overlap(other)[""] < 0.95


def test_matching_overshoots_by_less_than_a_slice():
    generator = torch.Generator().manual_seed(0)
    shapes = {"w": (6, 7), "c": (4, 2, 3, 3), "b": (5,), "t": ()}
    masks = {n: torch.rand(s, generator=generator) < 0.4 for n, s in shapes.items()}
    out = draw_matched_mask(masks, "channel", generator)
    for name, mask in masks.items():
        size = mask[0].numel() if mask.ndim else 1
        assert 0 <= int(out[name].sum()) - int(mask.sum()) < max(size, 1), name
        if mask.ndim > 1:
            assert set(out[name].flatten(1).float().mean(1).tolist()) <= {0.0, 1.0}
    exact = draw_matched_mask(masks, "parameter", generator)
    assert {n: int(m.sum()) for n, m in exact.items()} == {
        n: int(m.sum()) for n, m in masks.items()
    }
    assert torch.equal(exact["t"], masks["t"])


def test_contrast_by_hand():
    value = compute_score_ratio(torch.tensor([4.0, 1.0]), torch.tensor([1.0, 0.0]), 1.0)
    assert value.tolist() == [2, 1]


def test_a_saved_mask_is_used_and_checked(strategy, resnet, net, asked, tmp_path):
    request = asked
    mask = Mask(strategy("salloc")(resnet, request, 0.2))
    mask.save(tmp_path / "mask.pt")
    saved = strategy("saved", path=str(tmp_path / "mask.pt"))
    assert not saved.needs_budget
    back = saved(resnet, request, 1.0)
    assert all(torch.equal(back[n], mask[n]) for n in mask)
    if type(net) is not type(resnet):
        with pytest.raises(ValueError, match="the mask does not fit"):
            saved(net, request, 1.0)
    with pytest.raises(ValueError, match="must be a file with a mask"):
        strategy("saved", path=str(tmp_path / "absent.pt"))


def test_the_objective_of_critical_memorization_by_hand():
    losses = torch.tensor([2.0, 1.0, 3.0, 4.0])
    assert critical_objective(losses, 0).item() == pytest.approx((8 - 4 * 2) / 4)
    assert critical_objective(losses, 1).item() == pytest.approx((9 - 4 * 1) / 4)


def test_noise_has_the_norm_it_is_given():
    image = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    change = add_noise(image, 0.01, torch.Generator().manual_seed(1)) - image
    ratio = change.flatten(1).norm(dim=1) / image.flatten(1).norm(dim=1)
    assert ratio.tolist() == pytest.approx([0.01] * 3, rel=1e-3)


@pytest.mark.numeric
def test_removing_what_is_critical_loses_the_sample(strategy, resnet, asked):
    request = asked
    known = compute_logits(resnet, request.forget).argmax(1) == request.forget.label
    one = request.forget.rows(known.nonzero().flatten()[:1])
    alone = type(request)(forget=one, retain=request.retain)
    mask = strategy("critical_memorization", max_examples=None)(resnet, alone, 1.0)
    assert 0 < Mask(mask).compute_movable_share() < 0.5
    with torch.no_grad():
        for name, p in resnet.named_parameters():
            p.masked_fill_(mask[name], 0)
    assert compute_logits(resnet, one).argmax(1) != one.label


@pytest.mark.numeric
def test_gradient_steps_on_what_is_critical_lose_the_sample(strategy, resnet, asked, caplog):
    score = compute_logits(resnet, asked.forget).softmax(1).gather(1, asked.forget.label[:, None])
    one = asked.forget.rows(score.argmax(0))  # the surest one
    alone = type(asked)(forget=one, retain=asked.retain)
    state = copy.deepcopy(resnet.state_dict())
    options = {"objective": "step", "max_examples": None, "granularity": "parameter"}
    first = []
    for size, lost in ((1e-6, False), (100.0, True)):
        caplog.clear()
        choose = strategy("critical_memorization", step_size=size, **options)
        assert Mask(choose(resnet, alone, 1.0)).count_movable() >= 1
        assert ("still classified after all changes: 1" in caplog.text) != lost
        choose = strategy("critical_memorization", step_size=size, num_iterations=1, **options)
        first.append(choose(resnet, alone, 1.0))
    assert Mask(first[0]).count_movable() == 1  # the steepest weight, however long the step
    assert all(torch.equal(m, first[1][n]) for n, m in first[0].items())
    assert all(torch.equal(v, state[k]) for k, v in resnet.state_dict().items())
    for key, value in (("objective", "none"), ("step_size", 0)):
        with pytest.raises(ValueError, match=f"localization.{key} must be"):
            strategy("critical_memorization", **{key: value})


@pytest.mark.numeric
def test_the_union_is_all_there_is_and_a_small_budget_takes_part_of_it(
    strategy, resnet, asked, caplog
):
    request = asked
    union = Mask(strategy("critical_memorization", max_examples=8)(resnet, request, 1.0))
    wide = Mask(strategy("critical_memorization", max_examples=8)(resnet, request, 0.9))
    assert (
        wide.count_movable() == union.count_movable() and "parameters are critical" in caplog.text
    )
    filters = [n for n, m in union.items() if m.ndim == 4]
    assert all(set(union[n].flatten(1).float().mean(1).tolist()) <= {0.0, 1.0} for n in filters)
    half = Mask(
        strategy("critical_memorization", max_examples=8)(
            resnet, request, union.compute_movable_share() / 1.5
        )
    )
    assert 0 < half.count_movable() < union.count_movable()
    assert half.intersection(union).count_movable() == half.count_movable()
