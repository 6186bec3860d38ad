"""Layers in the order of execution, the head, and masks by depth."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unlearn.methods.localization.depth import select_whole_layers
from unlearn.methods.localization.mask import Mask, count_allowed_parameters
from unlearn.models.layer_groups import (
    group_by_block,
    group_by_layer,
    list_executed_modules,
    list_head_parameters,
)
from unlearn.models.resnet18 import ResNet18

IMAGE = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
# ResNet-18 with a 3x3 stem and 10 classes: parameters by block, and cumulative shares in per cent.
BLOCKS = {
    "stem": (1856, 0.017), "stages.0.0": (73984, 0.679), "stages.0.1": (73984, 1.341),
    "stages.1.0": (230144, 3.400), "stages.1.1": (295424, 6.044), "stages.2.0": (919040, 14.269),
    "stages.2.1": (1180672, 24.835), "stages.3.0": (3673088, 57.707),
    "stages.3.1": (4720640, 99.954), "fc": (5130, 100),
}  # fmt: skip
FROM_THE_TOP = [0.046, 21.169, 42.293, 43.475, 64.598, 75.165]


@pytest.fixture(scope="module")
def wide():
    return ResNet18(in_channels=3, image_size=8, num_classes=10, width=64).eval()


def test_resnet18_has_the_published_sizes(wide):
    groups = group_by_layer(wide, torch.randn(2, 3, 8, 8))
    size = {n: p.numel() for n, p in wide.named_parameters()}
    assert sum(size.values()) == 11_173_962
    assert len(groups) == 21  # 17 convolutions, 3 in the skips, the linear map
    shares = [sum(size[n] for n in names) / 11_173_962 * 100 for names in groups.values()]
    deep = torch.tensor(shares[::-1]).cumsum(0)
    assert deep[:6].tolist() == pytest.approx(FROM_THE_TOP, abs=6e-4)
    running = 0.0
    for block, (parameters, percent) in BLOCKS.items():
        own = [
            sum(size[n] for n in names)
            for title, names in groups.items()
            if title.startswith(block) or (block == "stem" and title == "conv1")
        ]
        running += sum(own)
        assert sum(own) == parameters
        assert running / 11_173_962 * 100 == pytest.approx(percent, abs=6e-4)


def test_deepest_and_shallowest_follow_these_sizes(wide, strategy, asked):
    request = type(asked)(forget=_rgb(asked.forget), retain=_rgb(asked.retain))
    deep = Mask(strategy("deepest", partial="none")(wide, request, 0.3))
    assert deep.compute_movable_share() * 100 == pytest.approx(21.169, abs=6e-4)
    assert deep["fc.weight"].all() and deep["stages.3.1.conv2.weight"].all()
    shallow = Mask(strategy("shallowest", partial="none")(wide, request, 0.1))
    assert shallow["conv1.weight"].all() and not shallow["fc.weight"].any()
    full = Mask(strategy("deepest")(wide, request, 0.3))
    assert (
        count_allowed_parameters(11_173_962, 0.3) - full.count_movable() < 512 * 9
    )  # less than a channel is left
    part = full["stages.3.1.conv1.weight"].flatten(1).float().mean(1)
    assert set(part.tolist()) == {0.0, 1.0} and part.sort(descending=True).values.equal(part)
    k = Mask(strategy("deepest", num_layers=2)(wide, request, 1.0))
    assert k.compute_movable_share() * 100 == pytest.approx(21.169, abs=6e-4)
    assert not strategy("deepest", num_layers=2).needs_budget
    with pytest.raises(ValueError, match=r"num_layers must be in 1..21"):
        strategy("deepest", num_layers=22)(wide, request, 1.0)


def test_blocks_are_the_stem_the_residual_blocks_and_the_head(wide, trained, strategy, asked):
    size = {n: p.numel() for n, p in wide.named_parameters()}
    groups = group_by_block(wide, torch.randn(2, 3, 8, 8))
    sizes = [sum(size[n] for n in names) for names in groups.values()]
    assert sizes == [parameters for parameters, _ in BLOCKS.values()]
    assert list(groups)[1:-1] == list(BLOCKS)[1:-1]
    blocks = list(group_by_block(trained["vit"], IMAGE))
    assert blocks == ["embed.1", "blocks.0", "blocks.1", "fc"]
    request = type(asked)(forget=_rgb(asked.forget), retain=_rgb(asked.retain))
    deep = Mask(strategy("deepest", grouping="block", partial="none")(wide, request, 0.43))
    assert deep.compute_movable_share() * 100 == pytest.approx(42.293, abs=6e-4)
    two = Mask(strategy("shallowest", grouping="block", num_layers=2)(wide, request, 1.0))
    assert two.compute_movable_share() * 100 == pytest.approx(0.679, abs=6e-4)
    with pytest.raises(ValueError, match=r"localization.grouping must be one of layer, block"):
        strategy("deepest", grouping="module")


def _rgb(data):
    return replace(data, image=data.image.repeat(1, 3, 1, 1)[:, :, :8, :8], view=_view)


def _view(image, index):
    return image.float()


def test_the_layers_of_a_transformer_are_its_sub_blocks(trained):
    vit = trained["vit"]
    groups = group_by_layer(vit, IMAGE)
    assert list(groups) == [
        "embed.1", "blocks.0.attention.qkv", "blocks.0.mlp.0", "blocks.1.attention.qkv",
        "blocks.1.mlp.0", "fc",
    ]  # fmt: skip
    assert {"cls", "position", "embed.0.weight", "embed.1.bias"} <= set(groups["embed.1"])
    assert "blocks.0.attention.log_scale" in groups["blocks.0.attention.qkv"]
    assert groups["fc"] == ["norm.weight", "norm.bias", "fc.weight", "fc.bias"]
    names = [n for g in groups.values() for n in g]
    assert sorted(names) == sorted(n for n, _ in vit.named_parameters())


def test_the_head_is_found_by_structure(trained):
    assert list_head_parameters(trained["resnet9"], IMAGE) == ["fc.weight"]
    assert list_head_parameters(trained["resnet18"], IMAGE) == ["fc.weight", "fc.bias"]
    assert list_head_parameters(trained["vit"], IMAGE) == [
        "norm.weight",
        "norm.bias",
        "fc.weight",
        "fc.bias",
    ]
    own = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 3))
    assert list_head_parameters(own, IMAGE) == ["3.weight", "3.bias"]
    with pytest.raises(ValueError, match="no linear map"):
        list_head_parameters(nn.Sequential(nn.Flatten(), nn.LayerNorm(144)), IMAGE)


class Backwards(nn.Module):
    """Registers its layers in the opposite order of their use; one parameter is used by hand."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)
        self.inner = nn.MultiheadAttention(4, 1, batch_first=True)
        self.first = nn.Conv2d(1, 4, 12)

    def forward(self, x):
        x = self.first(x).flatten(1)[:, None]
        return self.last(self.inner(x, x, x, need_weights=False)[0][:, 0])


def test_execution_decides_not_registration():
    net = Backwards()
    assert next(n for n, _ in list_executed_modules(net, IMAGE)) == "first"
    groups = group_by_layer(net, IMAGE)
    assert list(groups) == ["first", "last"]
    assert "inner.out_proj.weight" in groups["first"]  # its parent runs it without a call
    net.unused = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"'unused.weight' belongs to no layer"):
        group_by_layer(net, IMAGE)


def test_whole_layers_by_hand():
    shape = {"a": torch.Size((2, 3)), "b": torch.Size((2,)), "c": torch.Size((4, 2))}
    groups = [["a", "b"], ["c"]]
    full = select_whole_layers(groups, shape, 13, partial="channels")
    assert {n: int(m.sum()) for n, m in full.items()} == {"a": 6, "b": 2, "c": 4}
    assert full["c"].any(1).tolist() == [True, True, False, False]
    none = select_whole_layers(groups, shape, 13, partial="none")
    assert not none["c"].any()
    part = select_whole_layers(
        groups, shape, 6, partial="channels"
    )  # row 0, its bias, and row 1 fits not
    assert part["a"].any(1).tolist() == [True, False] and part["b"].tolist() == [True, False]
    with pytest.raises(ValueError, match="less than the first layer"):
        select_whole_layers(groups, shape, 7, partial="none")
