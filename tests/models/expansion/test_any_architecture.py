"""Extra channels for networks of any class: exact without them, live with them, refused in time."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt, LayerNorm2d
from torchvision.models.resnet import BasicBlock

from unlearn.models.adapted import detach_weights
from unlearn.models.expansion.any_architecture import (
    check_growable,
    find_growable_groups,
    grow_network,
    select_groups,
)
from unlearn.models.expansion.channel_groups import find_groups
from unlearn.models.expansion.expanded import Expanded, remove_extra_channels
from unlearn.models.surgery import recalibrate_batch_norm

IMAGE = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
INDEX, OFF = torch.arange(3), torch.full((3,), -1)


def chain():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(),
        nn.MaxPool2d(5), nn.Flatten(), nn.Linear(6 * 4, 8), nn.Tanh(), nn.Linear(8, 3),
    )  # fmt: skip


def resnet():
    down = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        BasicBlock(8, 8), BasicBlock(8, 16, 2, down), BasicBlock(16, 16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def mobilenet():
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    row = InvertedResidualConfig(8, 3, 16, 8, True, "HS", 1, 1, 1.0)
    return MobileNetV3([row, row], last_channel=12, num_classes=3)


def convnext():
    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3)


def vit():
    return models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=3)


class Tokens(nn.Module):
    """A convolutional net with norms of the last dimension, as in ConvNeXt V2."""

    def __init__(self):
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 4, 4), LayerNorm2d(8)
        self.mix = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.last, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(self.stem(x))
        y = self.norm(self.mix(x).permute(0, 2, 3, 1))
        y = nn.functional.normalize(self.up(y).relu(), dim=1)  # a norm that no layer is
        x = x + self.down(y).permute(0, 3, 1, 2)
        return self.head(self.last(x.mean((2, 3))))


def group_norms():
    def block(c, groups):
        return [nn.Conv2d(c, 8, 3, padding=1), nn.GroupNorm(groups, 8), nn.ReLU()]

    return nn.Sequential(
        *block(3, 4), *block(8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def instance_norms():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.ReLU(),
        nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6), nn.ReLU(), nn.MaxPool2d(7), nn.Flatten(),
        nn.Linear(6 * 16, 3),
    )  # fmt: skip


def reparametrized():
    return nn.Sequential(
        weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), spectral_norm(nn.Conv2d(4, 6, 3)), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), weight_norm(nn.Linear(6, 3)),
    )  # fmt: skip


def older_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # replaced in torch, still in use
        first = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    last = nn.utils.spectral_norm(nn.Linear(6, 3))
    return nn.Sequential(
        first, nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last
    )


def without_affine():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6, track_running_stats=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


NETWORKS = [chain, resnet, mobilenet, convnext, vit, Tokens, group_norms, instance_norms]
NETWORKS += [reparametrized, older_weight_norm, without_affine]


def made(build):
    torch.manual_seed(1)
    network = build()
    for p in network.parameters():  # zero heads and layer scales would hide everything
        nn.init.normal_(p, std=0.3) if p.ndim < 2 or p.std() == 0 else None
    detach_weights(network)
    return network.eval()


def grown(network, **more):
    options = {"ratio": 1.0, "num_samples": 3, "density": 0.7, "seed": 0} | more
    return grow_network(copy.deepcopy(network), IMAGE, **options).eval()


@pytest.mark.numeric
@pytest.mark.parametrize("build", NETWORKS, ids=lambda b: b.__name__)
def test_base_mode_is_the_network_itself_and_new_channels_act_only_when_on(build):
    network = made(build)
    with torch.no_grad():
        wanted = network(IMAGE)
        new = grown(network)
        assert isinstance(new, Expanded)
        assert torch.equal(new(IMAGE), wanted)
        torch.testing.assert_close(new(IMAGE, OFF), wanted, rtol=1e-4, atol=1e-4)
        masked = new(IMAGE, INDEX)
        assert (masked - wanted).abs().max() > 1e-4
        assert torch.equal(masked, grown(network)(IMAGE, INDEX))
        assert torch.equal(copy.deepcopy(new)(IMAGE, INDEX), masked)
        plain = remove_extra_channels(new)
        assert torch.equal(plain(IMAGE), wanted)
    assert type(plain) is type(network)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }
    hooks = [
        [hook for m in net.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)]
        for net in (plain, network)
    ]
    assert len(hooks[0]) == len(hooks[1])


@pytest.mark.parametrize("build", NETWORKS, ids=lambda b: b.__name__)
def test_every_new_weight_learns(build):
    new = grown(made(build), density=1.0).train()
    new(IMAGE, INDEX).square().sum().backward()
    assert [n for n, p in new.named_parameters() if n.startswith("twins") and p.grad is None] == []
    assert any(p.grad.abs().sum() > 0 for n, p in new.named_parameters() if n.startswith("twins"))


def test_samples_that_share_a_mask_answer_alike_and_others_do_not():
    new = grown(made(chain))
    same = IMAGE[:1].expand(3, -1, -1, -1)
    with torch.no_grad():
        own = new(same, INDEX)
        assert not torch.allclose(own[0], own[1])
        new.share_mask(torch.tensor([0, 1]))
        together = new(same, INDEX)
    torch.testing.assert_close(together[0], together[1])


def test_training_in_masked_mode_moves_the_old_statistics_as_the_network_would_have():
    network = made(chain)
    new = grown(network).train()
    new(IMAGE, INDEX)
    network.train()(IMAGE)
    torch.testing.assert_close(remove_extra_channels(new)[1].running_mean, network[1].running_mean)
    recalibrate_batch_norm(new, [IMAGE])
    torch.testing.assert_close(
        remove_extra_channels(new)[1].running_mean, network[0](IMAGE).mean((0, 2, 3))
    )


def test_statistics_of_base_mode_alone():
    new = grown(made(chain)).train()
    new.separate_statistics()
    before = remove_extra_channels(new)[1].running_mean.clone()
    new(IMAGE, INDEX)
    assert torch.equal(remove_extra_channels(new)[1].running_mean, before)
    new(IMAGE)
    assert not torch.equal(remove_extra_channels(new)[1].running_mean, before)


def test_a_residual_stream_grows_as_one_and_the_inside_of_its_blocks_does_not():
    chosen = select_groups(find_groups(resnet().eval(), IMAGE))
    makers = [set(g.makers) for g in sorted(chosen, key=lambda g: g.width)]
    assert makers == [{"0", "4.conv2"}, {"5.conv2", "5.downsample.0", "6.conv2"}]
    assert sorted(grown(made(resnet), ratio=0.5)._split) == [4, 8]


def test_group_norms_grow_by_whole_groups_and_normalize_old_channels_by_themselves():
    network = made(group_norms)
    new = grown(network, ratio=0.2)
    assert new._split == [2, 2]  # two channels a group; round(1.6) of the norm over all
    first, second = (
        t for t in new.get_submodule("twins").children() if isinstance(t.new, nn.GroupNorm)
    )
    assert (first.new.num_groups, first.new.num_channels) == (1, 2)
    assert (second.new.num_groups, second.new.num_channels) == (1, 2)
    x = torch.randn(3, 10, 4, 4)
    new._switch.now = new.extra_gates(INDEX)
    torch.testing.assert_close(new.network[1](x)[:, :8], network[1](x[:, :8]))


def test_a_network_that_grew_before_grows_as_before():
    """Norms that mix channels carry them only if nothing grows without."""
    assert [g.makers for g in select_groups(find_groups(convnext().eval(), IMAGE))] == [
        g.makers for g in find_growable_groups(convnext().eval(), IMAGE)
    ]


def test_a_network_without_room_is_refused_with_its_layers_named():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(2, 3)

        def forward(self, x):
            first, second = self.stem(x).chunk(2, 1)
            return self.fc((first * second).mean((2, 3)))

    with pytest.raises(ValueError, match=r"Mixed cannot be expanded.*'stem'.*chunk.*npo"):
        check_growable(Mixed(), IMAGE)
    with pytest.raises(ValueError, match="no convolution or linear map that feeds another"):
        check_growable(nn.Sequential(nn.Flatten(), nn.Tanh()), IMAGE)


def test_code_that_the_analysis_misreads_is_caught_by_the_trial():
    class Deceitful(nn.Module):
        """Mixes channels in a function that keeps the shape."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            x = torch.softmax(self.a(x), 1)
            return self.c(torch.relu(self.b(x)).mean((2, 3)))

    network = Deceitful().eval()
    new = grown(network)
    with torch.no_grad():
        torch.testing.assert_close(new(IMAGE, OFF), network(IMAGE))
    assert new._split == [4]  # b's channels alone
