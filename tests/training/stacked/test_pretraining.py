import copy
import csv

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from unlearn.data.datasets.augmentation import Augment
from unlearn.models.expansion.expanded import Expanded
from unlearn.models.resnet9 import ResNet9
from unlearn.models.resnet18 import ResNet18
from unlearn.models.vit import ViT
from unlearn.training.loader import num_batches
from unlearn.training.optimizers import NormalizedSGD
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import WarmupLinear
from unlearn.training.stacked.pretraining import StackMember, find_obstacle, pretrain_stacked

pytestmark = pytest.mark.numeric

AUGMENT = Augment(crop_padding=1, flip_rate=0.5, cutout=0)
SHAPE = {"in_channels": 1, "image_size": 12, "num_classes": 3}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)


def normalized(parameters):
    return NormalizedSGD(parameters, lr=0.05, momentum=0.5, weight_decay=1e-3)


def recipe(optimizer=sgd, epochs=3):
    schedule = WarmupLinear(warmup_fraction=0.2, stretch=0.8)
    return Pretraining(
        epochs=epochs, batch_size=32, optimizer=optimizer, schedule=schedule, capacity=1, density=0
    )


def csv_logger(folder):
    return CSVLogger(folder, name="curves", version="")


def resnet9(seed, **more):
    torch.manual_seed(seed)
    return ResNet9(**SHAPE, width=2, **more)


def etd(seed):
    return Expanded(resnet9(seed, capacity=0.5, extra=0.5), num_samples=200, density=0.5, seed=seed)


def resnet18(seed):
    torch.manual_seed(seed)
    return ResNet18(**SHAPE, width=2)


def vit(seed):
    torch.manual_seed(seed)
    return ViT(**SHAPE, width=8, depth=1, heads=2, head_width=4, mlp_width=8, patch_size=4)


def members_of(make, data, sizes):
    return [StackMember(make(k), data.rows(torch.arange(n)), seed=k) for k, n in enumerate(sizes)]


def one_by_one(members, how, engine):
    out = []
    for member in members:
        net = copy.deepcopy(member.network)
        pretrain(net, member.data, how, engine, augment=AUGMENT, seed=member.seed)
        out.append(net.state_dict())
    return out


def alike(one, two, tolerance):
    for name, value in one.items():
        assert value.dtype == two[name].dtype
        torch.testing.assert_close(value, two[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize(
    ("make", "sizes", "optimizer", "epochs"),
    [
        (resnet9, (96, 96, 96), sgd, 3),  # in step: one optimizer
        (resnet9, (100, 97, 65, 128), sgd, 3),  # last batches and ends differ
        (resnet9, (96, 90), normalized, 2),  # no elementwise optimizer
        (etd, (200, 200), sgd, 2),  # masks of one's own
        (resnet18, (64, 70), sgd, 1),
        (vit, (64, 70), sgd, 1),  # no batch norm
    ],
)
def test_a_stack_learns_what_each_model_learns_alone(make, sizes, optimizer, epochs, clean, engine):
    members, how = members_of(make, clean[0], sizes), recipe(optimizer, epochs)
    alone = one_by_one(members, how, engine)
    start = [copy.deepcopy(m.network.state_dict()) for m in members]
    notes = dict(pretrain_stacked(members, how, engine, augment=AUGMENT))
    assert sorted(notes) == list(range(len(sizes)))
    for number, member in enumerate(members):
        state = member.network.state_dict()
        alike(alone[number], state, 2e-3)
        moved = [(state[k].float() - v).abs().max() for k, v in start[number].items()]
        assert max(moved) > 0.01  # the tolerance is well below what was learned
        assert notes[number]["images_seen"] == epochs * sizes[number]
        assert not member.network.training


def test_an_ended_model_holds_no_memory_of_the_stack(clean, engine):
    members = members_of(resnet9, clean[0], (64, 96))
    list(pretrain_stacked(members, recipe(epochs=1), engine, augment=None))
    for tensor in members[0].network.state_dict().values():
        assert (
            tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        )  # a file of it is no larger


@pytest.mark.parametrize("sizes", [(96, 96, 96), (96, 90, 80)])
def test_a_model_whose_loss_is_lost_is_left_out_and_harms_no_other(sizes, clean, engine):
    members = members_of(resnet9, clean[0], sizes)
    alone = one_by_one(members, recipe(), engine)
    torch.nn.init.constant_(members[1].network.fc.weight, float("nan"))
    assert sorted(dict(pretrain_stacked(members, recipe(), engine, augment=AUGMENT))) == [0, 2]
    for number in (0, 2):
        alike(alone[number], members[number].network.state_dict(), 2e-3)


def curve(folder):
    with (folder / "curves" / "metrics.csv").open() as file:
        return [(int(row["epoch"][0]), float(row["train/loss"])) for row in csv.DictReader(file)]


def test_every_model_has_its_own_curve(clean, engine, tmp_path):
    members = members_of(resnet9, clean[0], (100, 65))
    for number, member in enumerate(members):
        net, alone = copy.deepcopy(member.network), csv_logger(tmp_path / f"alone{number}")
        pretrain(net, member.data, recipe(), engine, augment=None, seed=number, loggers=[alone])
        member.loggers = [csv_logger(tmp_path / f"both{number}")]
    list(pretrain_stacked(members, recipe(), engine, augment=None))
    for number in range(2):
        one, two = curve(tmp_path / f"alone{number}"), curve(tmp_path / f"both{number}")
        assert [epoch for epoch, _ in two] == [1, 2, 3]
        assert [v for _, v in two] == pytest.approx([v for _, v in one], rel=1e-3)


def test_what_cannot_be_stacked_says_why(engine):
    assert find_obstacle(engine, resnet9(0)) is None
    drawing = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(2, 2))
    assert "dropout" in (find_obstacle(engine, drawing) or "")
    assert num_batches(65, 32) == 2  # the last one of 33: a batch larger than the rest
