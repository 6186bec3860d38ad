"""What the tests of methods share: networks that know the wrong labels, and recipes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from unlearn.core.types import ImageSet
from unlearn.data.corruption.random_label import RandomLabel
from unlearn.models.inference import compute_logits
from unlearn.models.resnet9 import ResNet9
from unlearn.models.vit import ViT
from unlearn.training.schedules import Constant
from unlearn.training.unlearning import LightningFit


def memorise(network, data: ImageSet, optimizer):
    """Train until every label has a probability above 0.6, looked up after every step.

    Small steps and the frequent look make networks alike whatever path the rounding takes: none is
    saturated, where a loss would have no gradient to climb, and none guesses.
    """
    torch.manual_seed(0)
    for _ in range(100):
        for rows in torch.randperm(len(data)).split(20):
            batch = next(data.rows(rows).batches())
            optimizer.zero_grad()
            F.cross_entropy(network.train()(batch.image), batch.label).backward()
            optimizer.step()
            if (
                F.cross_entropy(compute_logits(network, data), data.label, reduction="none").max()
                < 0.5
            ):
                return network.eval()
    raise AssertionError("the network does not memorise its labels")


@pytest.fixture(scope="session")
def memorising_resnet(clean):
    torch.manual_seed(0)
    net = ResNet9(in_channels=1, image_size=12, num_classes=3, width=8)
    data = RandomLabel()(clean[0], count=20, seed=0)[0]
    return memorise(net, data, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9))


@pytest.fixture(scope="session")
def memorising_vit(clean):
    torch.manual_seed(0)
    net = ViT(
        in_channels=1, image_size=12, num_classes=3, width=16, depth=2, heads=2, head_width=8,
        mlp_width=32, patch_size=4,
    )  # fmt: skip
    data = RandomLabel()(clean[0], count=20, seed=0)[0]
    return memorise(net, data, torch.optim.Adam(net.parameters(), lr=0.003))


@pytest.fixture
def resnet(memorising_resnet):
    return copy.deepcopy(memorising_resnet)


@pytest.fixture
def vit(memorising_vit):
    return copy.deepcopy(memorising_vit)


@pytest.fixture(params=["resnet", "vit"])
def known(request):
    """Either network."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def recipe():
    """A recipe with momentum and weight decay, both of which move weights without a gradient."""

    def make(lr=0.02, epochs=2, batch_size=32, momentum=0.9, weight_decay=0.01):
        return {
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": lambda p: torch.optim.SGD(
                p, lr=lr, momentum=momentum, weight_decay=weight_decay
            ),
            "schedule": Constant(),
        }

    return make


@pytest.fixture
def trusted(task):
    """The task with a trusted set of 60 clean images of the retain set."""
    clean = task.retain_indices()[~task.truth.corrupted[task.retain_indices()]]
    own = task.train.rows(clean[:60])
    return replace(task, trusted=own)


@pytest.fixture
def known_right(trusted):
    """The request of a method that needs a trusted set."""
    return trusted.request(trusted=True)


@pytest.fixture
def fit(engine):
    return LightningFit(engine, augment=None, seed=0)
