"""Sizes and mask equivalences of the networks."""

import copy

import pytest
import torch

from unlearn.core.types import ImageSet
from unlearn.models.expansion.expanded import (
    Expanded,
    draw_masks,
    expand_network,
    remove_extra_channels,
)
from unlearn.models.resnet9 import ResNet9
from unlearn.models.resnet18 import ResNet18
from unlearn.models.resnet50 import ResNet50
from unlearn.models.surgery import (
    batch_norms,
    iterate_shuffled_images,
    recalibrate_batch_norm,
    reinitialize_network,
)
from unlearn.models.vgg16 import VGG16
from unlearn.models.vit import SplitLayerNorm, ViT, shifted_copies
from unlearn.models.wide_resnet import WideResNet

SMALL_VIT = {"width": 32, "depth": 2, "heads": 2, "head_width": 8, "mlp_width": 24, "patch_size": 8}
FULL_VIT = {
    "width": 512,
    "depth": 4,
    "heads": 8,
    "head_width": 64,
    "mlp_width": 1536,
    "patch_size": 8,
}
SMALL = [
    (ResNet9, {"width": 4}),
    (ResNet18, {"width": 4}),
    (WideResNet, {"depth": 10, "width": 1}),
    (ViT, SMALL_VIT),
    (ResNet50, {"width": 4, "stem": "small"}),
    (VGG16, {"width": 4, "pool": 1}),
]


def build(kind, options, **more):
    return kind(in_channels=3, image_size=32, num_classes=10, **options, **more)


def settled(kind, options):
    """A network whose batch-norm statistics are no longer those of a fresh one."""
    torch.manual_seed(0)
    net = build(kind, options).train()
    for _ in range(3):
        net(torch.randn(16, 3, 32, 32) * 2 + 1)
    return net.eval()


@pytest.mark.parametrize(
    ("kind", "options", "count"),
    [
        (ResNet9, {"width": 64}, 2_276_224),
        (ResNet18, {"width": 64}, 11_173_962),
        (ViT, FULL_VIT, 11_013_518),
        (WideResNet, {"depth": 28, "width": 10}, 36_490_250),
        (ResNet50, {"width": 64, "stem": "small"}, 23_520_842),
        (VGG16, {"width": 64, "pool": 1}, 14_723_136 + 5130),
    ],
)
def test_published_parameter_counts(kind, options, count):
    with torch.device("meta"):
        net = build(kind, options)
    assert sum(p.numel() for p in net.parameters()) == count


def test_stem_and_pooling_for_large_images():
    with torch.device("meta"):
        network = ResNet50(in_channels=3, image_size=128, num_classes=100, width=64, stem="large")
        assert network.maxpool(network.conv1(torch.zeros(1, 3, 128, 128))).shape[2:] == (32, 32)
        assert sum(p.numel() for p in network.parameters()) == 23_712_932  # of arXiv 2412.02432
        wide = VGG16(in_channels=3, image_size=64, num_classes=200, width=64, pool=2)
        assert wide.fc.in_features == 2048  # of arXiv 2406.01257
        assert wide(torch.zeros(2, 3, 64, 64)).shape == (2, 200)
    with pytest.raises(ValueError, match=r"model.stem must be one of small, large, got 7x7"):
        build(ResNet50, {"width": 4, "stem": "7x7"})
    with pytest.raises(ValueError, match=r"model.pool=2 needs dataset.image_size of at least 64"):
        build(VGG16, {"width": 4, "pool": 2})


@pytest.mark.parametrize(("kind", "options"), SMALL)
def test_masked_expansion_equals_the_original_exactly(kind, options):
    net = settled(kind, options)
    x = torch.randn(5, 3, 32, 32)
    wide = expand_network(net, ratio=1.0, num_samples=9, density=0.4, seed=1)
    with torch.no_grad():
        assert torch.equal(wide(x), net(x))
        assert (wide(x, torch.full((5,), -1)) - net(x)).abs().max() < 1e-5
        assert (wide(x, torch.arange(5)) - net(x)).abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "options"), SMALL)
def test_dropping_after_training_equals_base_mode_and_fits_the_plain_class(kind, options):
    net = settled(kind, options)
    wide = expand_network(net, ratio=1.0, num_samples=9, density=0.4, seed=1).train()
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.05)
    x, index = torch.randn(9, 3, 32, 32), torch.arange(9)
    for _ in range(3):
        optimizer.zero_grad()
        (wide(x).square().mean() - wide(x, index).square().mean()).backward()
        optimizer.step()
    plain = remove_extra_channels(wide).eval()
    wide.eval()
    with torch.no_grad():
        assert torch.equal(plain(x), wide(x))
    target = build(kind, options)
    target.load_state_dict(plain.state_dict())
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in net.parameters())


def test_base_mode_gives_new_channels_no_gradient():
    wide = expand_network(settled(*SMALL[0]), ratio=1.0, num_samples=4, density=0.5, seed=0)
    wide(torch.randn(4, 3, 32, 32)).sum().backward()
    for name, p in wide.network.named_parameters():
        inside = torch.zeros_like(p, dtype=torch.bool)
        inside[tuple(slice(s) for s in wide._old_shape[name])] = True
        assert p.grad is not None
        assert p.grad[~inside].abs().sum() == 0
        assert name.endswith("bias") or p.grad[inside].abs().sum() > 0


def test_idle_channels_of_half_capacity_equal_the_sliced_network():
    torch.manual_seed(0)
    grown = build(ResNet9, {"width": 8}, capacity=0.5, extra=0.5)
    half = Expanded(grown, num_samples=6, density=0.0, seed=0).eval()
    x = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        assert (half(x) - half(x, torch.arange(6))).abs().max() < 1e-5
    assert grown.group_channels == (8, 16, 32, 16)
    assert remove_extra_channels(half).group_channels == (4, 8, 16, 8)


def test_masks_are_fixed_shared_and_of_the_wanted_density():
    wide = expand_network(settled(*SMALL[0]), ratio=1.0, num_samples=50, density=0.3, seed=5)
    before = wide.select_gates(torch.arange(50))
    wide.share_mask(torch.tensor([3, 7]))
    after = wide.select_gates(torch.arange(50))
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new[3], new[7])
        others = [i for i in range(50) if i not in (3, 7)]
        assert torch.equal(old[others], new[others])
    masks = draw_masks(0, 0, 2000, 64, 0.2)
    assert abs(masks.mean() - 0.2) < 0.01
    assert torch.equal(masks, draw_masks(0, 0, 2000, 64, 0.2))
    assert not torch.equal(masks, draw_masks(0, 1, 2000, 64, 0.2))
    assert draw_masks(0, 0, 3, 4, 1e-9)[0].sum() == 1


def test_recalibration_averages_batches_and_leaves_modes_alone():
    net = settled(*SMALL[0])
    images = [torch.randn(32, 3, 32, 32) + 2 for _ in range(4)]
    recalibrate_batch_norm(net, images)
    first = net.conv1[0](torch.cat(images))
    assert torch.allclose(net.conv1[1].running_mean, first.mean((0, 2, 3)), atol=1e-4)
    assert not net.training
    assert all(layer.momentum == 0.1 for layer in batch_norms(net))


def test_recalibration_does_not_depend_on_the_stored_order():
    """Images sorted by class, as in folders: batches of one class lack most of the variance."""
    images = (20 * torch.arange(10).repeat_interleave(64) + 20).to(torch.uint8)
    noise = torch.randint(0, 20, (640, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    ordered = ImageSet(
        image=images[:, None, None, None] + noise.to(torch.uint8), label=torch.arange(640) // 64,
        index=torch.arange(640), num_classes=10, view=lambda image, _: image / 255,
    )  # fmt: skip
    mixed = ordered.rows(torch.randperm(640, generator=torch.Generator().manual_seed(1)))
    net = settled(*SMALL[0])
    found = {}
    for name, stored, batches in (
        ("sorted", ordered, iterate_shuffled_images(ordered, 64, 0)),
        ("mixed", mixed, iterate_shuffled_images(mixed, 64, 0)),
        ("in order", ordered, (b.image for b in ordered.batches(64))),
    ):
        recalibrate_batch_norm(net, batches)
        layer = net.conv1[1]
        truth = net.conv1[0](stored.view(stored.image, stored.index)).detach()
        torch.testing.assert_close(layer.running_mean, truth.mean((0, 2, 3)), rtol=0.01, atol=1e-4)
        found[name] = layer.running_var / truth.var((0, 2, 3))
    assert (found["sorted"] - 1).abs().max() < 0.1
    assert (found["mixed"] - 1).abs().max() < 0.1
    assert found["in order"].min() < 0.3
    again = [list(iterate_shuffled_images(ordered, 64, seed)) for seed in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(again[0], again[1], strict=True))
    assert not torch.equal(again[0][0], again[2][0])


def test_shuffled_images_are_all_there_and_no_batch_holds_one():
    data = ImageSet(
        image=torch.arange(9, dtype=torch.uint8)[:, None, None, None], label=torch.zeros(9).long(),
        index=torch.arange(9), num_classes=1, view=lambda image, index: image + 10 * index[:, None, None, None],
    )  # fmt: skip
    batches = list(iterate_shuffled_images(data, 4, seed=0))
    assert [len(b) for b in batches] == [4, 5]
    assert torch.cat(batches).flatten().sort().values.tolist() == [11 * i for i in range(9)]


def test_recalibrating_an_expanded_network_moves_only_old_statistics():
    wide = expand_network(settled(*SMALL[0]), ratio=1.0, num_samples=4, density=0.5, seed=0).eval()
    bn = wide.network.conv1[1]
    old, new = bn.running_mean[:4].clone(), bn.running_mean[4:].clone()
    recalibrate_batch_norm(wide, [torch.randn(32, 3, 32, 32) + 5])
    assert not torch.allclose(bn.running_mean[:4], old)
    assert torch.equal(bn.running_mean[4:], new)


def test_fresh_weights_differ_by_seed_and_leave_the_global_state():
    net = settled(*SMALL[0])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, again, two = (
        reinitialize_network(net, 1),
        reinitialize_network(net, 1),
        reinitialize_network(net, 2),
    )
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.fc.weight, again.fc.weight)
    assert not torch.equal(one.fc.weight, two.fc.weight)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2))
    assert not torch.equal(reinitialize_network(plain, 0)[0].weight, plain[0].weight)


def test_a_network_that_cannot_be_expanded_says_so():
    with pytest.raises(ValueError, match="cannot be expanded"):
        expand_network(torch.nn.Linear(2, 2), ratio=1.0, num_samples=1, density=0.5, seed=0)


@pytest.mark.parametrize(
    ("kind", "options", "size"), [(ResNet9, {"width": 4}, 10), (ViT, SMALL_VIT, 12)]
)
def test_images_that_do_not_fit_are_refused(kind, options, size):
    with pytest.raises(ValueError, match="image_size"):
        kind(in_channels=1, image_size=size, num_classes=2, **options)


def test_shifts_and_split_norm_by_hand():
    image = torch.arange(4.0).view(1, 1, 2, 2)
    copies = shifted_copies(image)[0]
    assert copies[1].tolist() == [[0, 0], [0, 2]]  # moved right
    assert copies[2].tolist() == [[1, 0], [3, 0]]  # moved left
    assert copies[3].tolist() == [[0, 0], [0, 1]]  # moved down
    norm = SplitLayerNorm(4, 2)
    out = norm(torch.tensor([[1.0, 3.0, 10.0, 30.0]]))
    assert torch.allclose(out, torch.tensor([[-1.0, 1.0, -1.0, 1.0]]), atol=1e-4)


def test_an_expanded_network_can_be_copied():
    wide = expand_network(settled(*SMALL[0]), ratio=0.5, num_samples=4, density=0.5, seed=0).eval()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(wide)(x, torch.arange(4)), wide(x, torch.arange(4)))
