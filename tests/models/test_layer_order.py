"""Counting the layers of networks."""

import pytest
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from unlearn.models.layers import group_modules_by_layer
from unlearn.models.resnet9 import ResNet9
from unlearn.models.resnet18 import ResNet18
from unlearn.models.vit import ViT


def owned(model, k):
    """Names of the parameters and buffers in the last k layers."""
    modules = {id(m) for part in group_modules_by_layer(model)[-k:] for m in part}
    return {
        f"{name}.{key}".lstrip(".")
        for name, module in model.named_modules()
        if id(module) in modules
        for key in (*module._parameters, *module._buffers)
        if getattr(module, key) is not None
    }


def test_resnet9_counts_as_the_papers_do():
    net = ResNet9(in_channels=3, image_size=12, num_classes=4, width=2)
    assert len(group_modules_by_layer(net)) == 9
    tops = {k: {name.split(".")[0] for name in owned(net, k)} for k in range(1, 10)}
    assert tops[1] == {"fc"}
    assert tops[2] == {"conv4", "fc"}
    assert tops[4] == {"res2", "conv4", "fc"}
    assert tops[5] == tops[4] | {"conv3"}
    assert tops[7] == tops[5] | {"res1"}
    assert tops[8] == tops[7] | {"conv2"}
    assert owned(net, 9) == set(net.state_dict())
    assert {n for n in owned(net, 3) if n.startswith("res2.first")} == set()
    assert "res2.second.1.running_mean" in owned(net, 3)  # a norm goes with its convolution


def test_every_module_is_in_exactly_one_layer():
    vit = ViT(
        in_channels=1, image_size=8, num_classes=3, width=8, depth=2, heads=2, head_width=4,
        mlp_width=8, patch_size=4,
    )  # fmt: skip
    for net in (vit, ResNet18(in_channels=1, image_size=8, num_classes=3, width=2)):
        listed = [m for part in group_modules_by_layer(net) for m in part]
        assert len(listed) == len({id(m) for m in listed}) == len(list(net.modules()))
    assert len(group_modules_by_layer(vit)) == 1 + 2 * 4 + 1
    assert owned(vit, 1) == {"fc.weight", "fc.bias"}
    assert {"blocks.1.mlp.2.weight", "norm.weight"} <= owned(vit, 2)
    assert {"cls", "position"} <= owned(vit, 10) - owned(vit, 9)
    assert "blocks.1.attention.log_scale" in owned(vit, 5) - owned(vit, 4)


def test_a_network_of_ones_own_counts_too():
    net = nn.Sequential(
        weight_norm(nn.Conv2d(1, 2, 3)),
        nn.GroupNorm(1, 2),
        nn.Flatten(),
        nn.Linear(8, 3),
        nn.PReLU(),
    )
    assert owned(net, 1) == {"3.weight", "3.bias", "4.weight"}
    assert owned(net, 2) >= {"0.bias", "0.parametrizations.weight.original0", "1.weight"}
    with pytest.raises(ValueError, match="no convolution and no linear map"):
        group_modules_by_layer(nn.BatchNorm2d(3))
