"""Loaders, schedules, optimizers, pre-training and its resumption."""

import copy
import os
import random
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from unlearn.core.errors import CollapsedError
from unlearn.data.datasets.augmentation import Augment
from unlearn.models.expansion.expanded import Expanded
from unlearn.models.inference import compute_accuracy
from unlearn.models.resnet9 import ResNet9
from unlearn.models.resnet18 import ResNet18
from unlearn.storage.state_dicts import epochs_done
from unlearn.training import pretraining as module
from unlearn.training.loader import RequestLoader, ResidentLoader, num_batches
from unlearn.training.optimizers import NormalizedSGD, use_fast_step
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant, Milestones, WarmupLinear

pytestmark = pytest.mark.numeric

LINEAR = WarmupLinear(warmup_fraction=0.2, stretch=0.8)


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


def recipe(**more):
    options = {
        "epochs": 4, "batch_size": 32, "optimizer": sgd, "schedule": LINEAR,
        "capacity": 1.0, "density": 0.0,
    }  # fmt: skip
    return Pretraining(**(options | more))


def test_an_epoch_serves_each_sample_once_in_a_new_order(task):
    loader = ResidentLoader(task.train, batch_size=64, augment=None, seed=3)
    first = torch.cat([b.index for b in loader])
    again = torch.cat([b.index for b in loader])
    loader.set_epoch(1)
    second = torch.cat([b.index for b in loader])
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(second.sort().values, task.train.index)
    assert len(loader) == 4


@pytest.mark.parametrize(
    ("samples", "size", "count"), [(10, 5, 2), (11, 5, 2), (12, 5, 3), (1, 5, 1)]
)
def test_no_batch_of_one_beside_others(samples, size, count, task):
    assert num_batches(samples, size) == count
    part = task.train.rows(torch.arange(samples))
    sizes = [len(b.label) for b in ResidentLoader(part, batch_size=size, augment=None, seed=0)]
    assert sum(sizes) == samples
    assert len(sizes) == count


def test_a_request_loader_repeats_the_forget_set_beside_the_rest(task):
    loader = RequestLoader(
        task.request(),
        uses=lambda epoch: ("retain", "forget") if epoch else ("forget",),
        batch_sizes=lambda: {"retain": 32, "forget": 4},
        augment=None,
        seed=0,
    )
    assert [sorted(b) for b in loader] == [["forget"]] * 3
    loader.set_epoch(1)
    batches = list(loader)
    assert len(batches) == num_batches(190, 32)
    assert sum(len(b["retain"].label) for b in batches) == 190
    assert set(torch.cat([b["forget"].index for b in batches]).tolist()) == set(
        task.forget_indices().tolist()
    )
    with pytest.raises(ValueError, match="it asked for 'test'"):
        loader.get_loader("test")


def test_schedule_of_the_benchmark_by_hand():
    schedule = WarmupLinear(warmup_fraction=0.01, stretch=1.25)
    assert schedule(0, 4000) == pytest.approx(1 / 41)
    assert schedule(39, 4000) == pytest.approx(40 / 41)
    assert schedule(40, 4000) == 1
    assert schedule(3999, 4000) == pytest.approx(1 - 3959 / 5000)
    assert LINEAR(99, 100) == pytest.approx(1 / 80)
    assert Constant()(5, 10) == 1


def test_normalized_steps_have_the_wanted_length():
    a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    NormalizedSGD([a, b], lr=0.5, momentum=0.0, weight_decay=0.0).step()
    assert torch.allclose(a, torch.tensor([-0.3, 0.0]))
    assert torch.allclose(b, torch.tensor([-0.4]))
    a.grad, b.grad = torch.zeros(2), torch.zeros(1)
    NormalizedSGD([a, b], lr=0.5, momentum=0.0, weight_decay=0.0).step()
    assert torch.isfinite(a).all()


def test_pretraining_learns_and_repeats_bit_for_bit(task, network, engine):
    twin = copy.deepcopy(network)
    notes = pretrain(network, task.train, recipe(epochs=8), engine, augment=None, seed=1)
    pretrain(twin, task.train, recipe(epochs=8), engine, augment=None, seed=1)
    assert compute_accuracy(network, task.test) > 0.9
    assert notes["images_seen"] == 1600
    for one, other in zip(network.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_global_random_state_is_left_alone(task, network, engine):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    pretrain(network, task.train, recipe(epochs=1), engine, augment=None, seed=1)
    assert torch.equal(torch.rand(2), expected)


AUGMENT = Augment(crop_padding=1, flip_rate=0.5, cutout=0)


def interrupt_training(network, data, engine, path, monkeypatch):
    """Train to the third epoch; return the engine, which saves a resume point every epoch."""

    class Stop(Exception):
        pass

    original = module.EpochLog.on_train_epoch_end

    def stop_in_the_third(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise Stop
        original(self, trainer, pl_module)

    often = copy.copy(engine)
    object.__setattr__(often, "checkpoint_seconds", 0.0)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(module.EpochLog, "on_train_epoch_end", stop_in_the_third)
        pretrain(network, data, recipe(), often, augment=AUGMENT, seed=2, resume=path)
    assert path.exists()
    return often


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_broken_resume_point_is_set_aside(task, network, engine, tmp_path, monkeypatch, caplog):
    straight, path = copy.deepcopy(network), tmp_path / "key" / "resume.ckpt"
    pretrain(straight, task.train, recipe(), engine, augment=AUGMENT, seed=2)
    often = interrupt_training(copy.deepcopy(network), task.train, engine, path, monkeypatch)
    content, draw = path.read_bytes(), random.Random(0)
    changed = bytearray()
    for _ in range(5):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        caplog.clear()
        assert epochs_done(path) == 0
        (line,) = caplog.messages
        assert line.startswith(f"training from the start: {path} is broken (")
        assert path.with_name("resume.ckpt.broken").read_bytes() == changed
    path.write_bytes(content)
    assert epochs_done(path) == 2
    other = tmp_path / "other" / "resume.ckpt"
    other.parent.mkdir()
    other.write_bytes(content)  # of another model of the cache
    assert epochs_done(other) == 0 and "under another key" in caplog.messages[-1]
    path.write_bytes(changed)
    again = copy.deepcopy(network)
    pretrain(again, task.train, recipe(), often, augment=AUGMENT, seed=2, resume=path)
    assert same_weights(again, straight)


def test_an_interrupted_training_resumes_bit_for_bit(task, network, engine, tmp_path, monkeypatch):
    augment = AUGMENT
    straight = copy.deepcopy(network)
    pretrain(straight, task.train, recipe(), engine, augment=augment, seed=2)
    path = tmp_path / "resume.ckpt"
    often = interrupt_training(network, task.train, engine, path, monkeypatch)
    torch.manual_seed(99)
    resumed = ResNet9(in_channels=1, image_size=12, num_classes=3, width=2)
    pretrain(resumed, task.train, recipe(), often, augment=augment, seed=2, resume=path)
    assert not path.exists()
    assert same_weights(straight, resumed)


def test_a_lost_loss_is_said(task, network, engine):
    def wild(params):
        return torch.optim.SGD(params, lr=1e30)

    with pytest.raises(CollapsedError, match="loss is"):
        pretrain(network, task.train, recipe(optimizer=wild), engine, augment=None, seed=0)


@pytest.mark.parametrize("density", [0.0, 0.5])
def test_half_capacity_and_example_tied_dropout(density, task, engine):
    plan = recipe(capacity=0.5, density=density, epochs=1)

    def factory(**shape):
        return ResNet9(**shape, width=4)

    net = plan.build_initial_network(factory, task.train, seed=0, mask_seed=0)
    assert isinstance(net, Expanded)
    idle = net.network.conv2[0].weight[:, 2:].detach().clone()
    pretrain(net, task.train, plan, engine, augment=None, seed=0)
    moved = not torch.allclose(net.network.conv2[0].weight[:, 2:], idle)
    assert moved == bool(density)


def test_idle_channels_need_room():
    with pytest.raises(ValueError, match="capacity below 1"):
        recipe(density=0.5)


def test_a_gpu_is_held_to_algorithms_that_repeat(engine, monkeypatch):
    assert not torch.are_deterministic_algorithms_enabled()  # a CPU repeats without
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        with warnings.catch_warnings():
            replace(engine, accelerator="auto")
            warnings.warn("x_cuda does not have a deterministic implementation, but", stacklevel=1)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True


MOMENTUM = {torch.optim.SGD: {"momentum": 0.9}, torch.optim.Adam: {}}


@pytest.mark.parametrize("kind", MOMENTUM)
def test_an_optimizer_steps_the_fast_way_unless_told(kind, network):
    def stepped(choose, **options):
        own = copy.deepcopy(network)
        optimizer = choose(
            kind(own.parameters(), lr=0.1, weight_decay=0.01, **MOMENTUM[kind], **options)
        )
        for size in (1.0, 2.0):
            for p in own.parameters():
                p.grad = torch.full_like(p, size).cumsum(0)
            optimizer.step()
        return optimizer.param_groups[0], torch.cat(
            [p.detach().flatten() for p in own.parameters()]
        )

    group, weights = stepped(use_fast_step)
    assert group["foreach"] is (True if kind is torch.optim.SGD else None) and not group["fused"]
    assert torch.equal(weights, stepped(lambda optimizer: optimizer)[1])  # not a bit differs
    assert stepped(use_fast_step, foreach=False)[0]["foreach"] is False
    plain = type("Plain", (kind,), {})
    other = use_fast_step(plain(network.parameters(), lr=0.1))
    assert other.param_groups[0]["foreach"] is None


def test_an_optimizer_is_fused_on_a_gpu(network):
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    there = [type("OnGPU", (), {"device": torch.device("cuda")})()]
    optimizer.param_groups[0]["params"], own = there, optimizer.param_groups[0]["params"]
    group = use_fast_step(optimizer).param_groups[0]
    assert group["fused"] is True and group["foreach"] is None
    group["params"] = own
    for p in own:
        p.grad = torch.ones_like(p)
    before = own[0].detach().clone()
    optimizer.step()  # torch takes what it would take from the constructor
    assert not torch.equal(before, own[0])


@pytest.mark.parametrize(
    ("layer", "contiguous"),
    [
        (nn.Conv2d(7, 4, 1, stride=2), True),
        (nn.Conv2d(1, 4, 1, stride=(1, 3)), True),
        (nn.Conv2d(8, 4, 1, stride=2), False),  # no fewer than 8 input channels
        (nn.Conv2d(6, 4, 3, stride=2), False),
        (nn.Conv2d(6, 4, 1), False),
        (nn.Conv2d(6, 4, 1, stride=2, groups=2), False),
    ],
)
def test_a_network_stays_contiguous_where_channels_last_overflows_a_buffer(
    layer, contiguous, engine
):
    network = nn.Sequential(nn.Conv2d(3, layer.in_channels, 3), copy.deepcopy(layer))
    for _ in range(2):  # also where it comes in that layout
        weight = engine.place_model(network)[0].weight
        assert weight.is_contiguous() == contiguous
        assert weight.is_contiguous(memory_format=torch.channels_last) != contiguous
        network = network.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("width", "contiguous"), [(2, True), (8, False)])
def test_a_narrow_resnet18_trains_in_a_layout_that_is_safe(width, contiguous, task, engine):
    torch.manual_seed(0)
    net = ResNet18(in_channels=1, image_size=12, num_classes=3, width=width)
    pretrain(net, task.train, recipe(epochs=1), engine, augment=None, seed=0)
    skip = net.stages[1][0].downsample[0]
    assert net.stages[1][0].conv1.weight.is_contiguous() == contiguous
    assert skip.weight.isfinite().all()


def test_the_rate_falls_at_milestones():
    schedule = Milestones(milestones=[0.4, 0.8], factor=0.2)
    assert [schedule(step, 10) for step in (0, 3, 4, 7, 8, 9)] == pytest.approx(
        [1, 1, 0.2, 0.2, 0.04, 0.04]
    )
    for wrong in ({"milestones": [0.8, 0.4]}, {"milestones": [0.5, 1.0]}, {"factor": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Milestones(**{"milestones": [0.5], "factor": 0.5} | wrong)
