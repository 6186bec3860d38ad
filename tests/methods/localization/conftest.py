"""What the tests of strategies share: every strategy by its config, and networks with some training."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.types import Request
from unlearn.models.resnet9 import ResNet9
from unlearn.models.resnet18 import ResNet18
from unlearn.models.vit import ViT

SHAPE = {"in_channels": 1, "image_size": 12, "num_classes": 3}


@cache
def node(name: str) -> dict[str, Any]:
    with enable_composition([config_dir()]):
        content = to_plain_config(
            compose_config("unlearn", [f"localization={name}"], [config_dir()])
        )
    return content["localization"]


@pytest.fixture
def strategy() -> Callable[..., Any]:
    """Build a strategy as its YAML says, with other values for some keys."""

    def make(name: str, **other: Any) -> Any:
        own = {"num_copies": 2, "max_examples": 3, "batch_size": 32}
        tiny = own if name == "critical_memorization" else {}
        try:
            return instantiate(copy.deepcopy(node(name)) | tiny | other, _convert_="all")
        except InstantiationException as error:  # what hydra wraps
            raise error.__cause__ or error from None

    return make


def makers() -> dict[str, Callable[[], nn.Module]]:
    tokens = {"width": 16, "depth": 2, "heads": 2, "head_width": 8, "mlp_width": 32}
    return {
        "resnet9": lambda: ResNet9(**SHAPE, width=8),
        "resnet18": lambda: ResNet18(**SHAPE, width=4),
        "vit": lambda: ViT(**SHAPE, **tokens, patch_size=4),
    }


@pytest.fixture(scope="session")
def trained(clean) -> dict[str, nn.Module]:
    out = {}
    for name, make in makers().items():
        torch.manual_seed(0)
        net = make().train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
        for batch in [b for _ in range(8) for b in clean[0].batches(50)]:
            optimizer.zero_grad()
            F.cross_entropy(net(batch.image), batch.label).backward()
            optimizer.step()
        optimizer.zero_grad()
        out[name] = net.eval()
    return out


@pytest.fixture
def asked(clean) -> Request:
    """Forget the first twenty samples; nothing is corrupted."""
    first = torch.arange(len(clean[0])) < 20
    return Request(forget=clean[0].rows(first), retain=clean[0].rows(~first))


@pytest.fixture(params=list(makers()))
def net(request, trained) -> nn.Module:
    """Each network in turn, a copy."""
    return copy.deepcopy(trained[request.param])


@pytest.fixture
def resnet(trained) -> nn.Module:
    return copy.deepcopy(trained["resnet9"])
