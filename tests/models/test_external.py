"""Networks of others: built for the data, tried, and refused in one line."""

import sys
from typing import Any

import pytest
import torch
from torch import nn

from unlearn.core.timm_input import NetworkInput, read_network_input
from unlearn.methods.base import UnlearningMethod
from unlearn.models.external import imported_network, timm_network, torchvision_network
from unlearn.models.surgery import reinitialize_network

SHAPE = {"in_channels": 3, "image_size": 32, "num_classes": 4}


def test_torchvision():
    network = torchvision_network(name="squeezenet1_1", **SHAPE)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    with pytest.raises(ValueError, match="did you mean resnet18"):
        torchvision_network(name="resnet81", **SHAPE)
    with pytest.raises(ValueError, match="reads 3 channels, the images have 1"):
        torchvision_network(name="resnet18", **SHAPE | {"in_channels": 1})
    with pytest.raises(ValueError, match="cannot read images"):
        torchvision_network(name="alexnet", **SHAPE)


def test_timm():
    pytest.importorskip("timm")
    network = timm_network(name="test_vit", **SHAPE)  # of a fixed size: built for this one
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    assert timm_network(name="test_resnet", **SHAPE | {"in_channels": 1}) is not None
    with pytest.raises(ValueError, match="did you mean test_resnet"):
        timm_network(name="test_resnett", **SHAPE)
    with pytest.raises(ValueError, match="pretraining must be standard"):
        timm_network(name="test_resnet", **SHAPE, capacity=0.5, extra=0.5)


def test_timm_s_weights_need_a_network(monkeypatch):
    pytest.importorskip("timm")
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    said = r"^timm's test_resnet cannot be built: no pretrained weights \(.*checkpoint=FILE"
    with pytest.raises(ValueError, match=said):
        timm_network(name="test_resnet", pretrained=True, **SHAPE)


def test_the_input_of_timm_s_weights():
    pytest.importorskip("timm")
    own: Any = timm_network(name="test_resnet", **SHAPE).network_input
    assert own == NetworkInput((0.5,) * 3, (0.5,) * 3, 160, "bilinear")
    assert own.compare([0.5, 0.5001, 0.5], (0.5,) * 3, 160) == []
    assert own.compare([0.4, 0.5, 0.5], [0.5], 32) == [
        "dataset.mean=[0.4, 0.5, 0.5] (its own: [0.5, 0.5, 0.5])",
        "dataset.std=[0.5] (its own: [0.5, 0.5, 0.5])",
        "dataset.image_size=32 (its own: 160)",
    ]
    assert read_network_input("resnet18").interpolation == "bicubic"


def test_an_absent_timm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"pip install 'unlearn-bench\[timm\]'"):
        timm_network(name="resnet18", **SHAPE)


def test_a_function_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "ours.py").write_text(
        "from torch import nn\n"
        "def build(num_classes, width=5):\n"
        "    head = nn.Linear(width, num_classes)\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)\n"
        "def wrong(): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))\n"
        "value = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    network = imported_network(path="ours:build", **SHAPE)
    assert isinstance(network, nn.Sequential)
    one, other = (
        reinitialize_network(network, 1),
        reinitialize_network(network, 2),
    )  # built again, not merely copied
    assert one[0].weight.shape == network[0].weight.shape
    assert not torch.equal(one[0].weight, other[0].weight)
    for path, message in (
        ("ours:wrong", r"must return \(2, 4\) logits for two images, got \(2, 7\)"),
        ("ours:absent", "cannot import ours:absent"),
        ("nowhere:build", "is its folder on PYTHONPATH"),
        ("ours:value", "is not callable"),
        ("ours", "must be module:function"),
    ):
        with pytest.raises(ValueError, match=message):
            imported_network(path=path, **SHAPE)


def test_methods_check_nothing_unless_they_say_so():
    assert UnlearningMethod.check_model(None, nn.Identity(), torch.zeros(1)) is None  # type: ignore[arg-type]
