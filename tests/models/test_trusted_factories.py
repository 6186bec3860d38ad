"""A card names a network; nothing else that it names is called."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unlearn
from unlearn.models.resnet9 import ResNet9
from unlearn.models.trusted_factories import build_card_network
from unlearn.storage.model_card import read_card

SHAPE = {"in_channels": 3, "image_size": 32, "num_classes": 4}
OWN = "unlearn.models.resnet9.ResNet9"


def test_networks_of_the_package_and_of_known_libraries_are_built():
    network = build_card_network({"_target_": OWN, "_partial_": True, "width": 4}, **SHAPE)
    assert isinstance(network, ResNet9)
    node = {"_target_": "unlearn.models.external.torchvision_network", "name": "mobilenet_v3_small"}
    assert build_card_network(node, **SHAPE)(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch {owned}"},
        {"_target_": "shutil.copy", "src": "{here}", "dst": "{owned}"},
        {"_target_": "sympy.sympify", "a": "__import__('os').mkdir('{owned}')"},
        {"_target_": "torch.load", "f": "{here}", "weights_only": False},
        {"_target_": "pandas.read_pickle", "filepath_or_buffer": "{here}"},
        {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.mkdir"}},
        {"_target_": "unlearn.models.external.imported_network", "path": "os:mkdir"},
        {"_target_": "unlearn.models.external.imported_network", "path": ["os:mkdir"]},
        {"_target_": "unlearn.models.external._import_object", "path": "os:mkdir"},
        {"_target_": "unlearn.models.external.importlib.import_module", "name": "this"},
        {"_target_": "unlearn.models.external.nn.Linear", "in_features": 2},
        {"_target_": "unlearn.models.external.os.mkdir", "path": "{owned}"},
        {"_target_": "unlearn.models.trusted_factories.build_card_network", "node": None},
        {"_target_": "unlearn.core.files.write_text_atomically", "path": "{owned}", "text": ""},
        {"_target_": OWN, "width": {"_target_": "os.mkdir", "path": "{owned}"}},
        {"_target_": OWN, "_args_": [1]},
        {"_target_": OWN, "width": "wide"},
        {"_target_": ["os.system"]}, {"path": "os:system"}, "os.system", None, [OWN],
    ],
    ids=lambda node: str(node)[:70],
)  # fmt: skip
def test_what_is_no_network_is_refused(node: Any, tmp_path: Path):
    owned, here = tmp_path / "owned", tmp_path / "here"
    here.write_text("x")
    text = json.dumps(node).replace("{owned}", str(owned)).replace("{here}", str(here))
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r"^card: ") as caught:
        build_card_network(json.loads(text), trust=["mypackage"], **SHAPE)
    assert "\n" not in str(caught.value)
    assert not owned.exists() and not {"this", "sympy"} & (set(sys.modules) - before)


def test_a_trusted_package_may_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "ours_trusted.py").write_text(
        "from torch import nn\n"
        "def build(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
        "def count(**shape): return 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    node = {
        "_target_": "unlearn.models.external.imported_network",
        "path": "ours_trusted:build",
    }
    with pytest.raises(ValueError, match=r"if you trust it, pass trust=\['ours_trusted'\]"):
        build_card_network(node, ["ours"], **SHAPE)
    assert isinstance(build_card_network(node, ["ours_trusted"], **SHAPE), nn.Sequential)
    with pytest.raises(ValueError, match=r"must build a torch\.nn\.Module, got int"):
        build_card_network({"_target_": "ours_trusted.count"}, ["ours_trusted"], **SHAPE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": "../elsewhere.pt"}, "file must be a name beside the card"),
        ({"file": None}, "file must be a name beside the card"),
        ({"classes": ["a"]}, "classes must be a list"),
        ({"input": {"in_channels": 3, "image_size": 10**9}}, "input.image_size must be an integer"),
        ({"input": {}}, "input.in_channels must be an integer"),
        ({"format": 99}, "is not a card of format"),
        ({"model": {"_target_": "os.system", "command": "true"}}, "card: model names os.system"),
    ],
)
def test_a_card_is_checked_before_it_is_used(change: dict[str, Any], said: str, tmp_path: Path):
    (tmp_path / "model.pt").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no bytes
    card = {"format": 1, "run_id": "r", "file": "model.pt", "sha256": empty, "classes": ["a", "b"]}
    card |= {"input": {"in_channels": 3, "image_size": 8}, "model": {"_target_": OWN, "width": 2}}
    (tmp_path / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(ValueError, match=said):
        unlearn.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "\x00", '{"format": 1}'])
def test_what_is_no_card_is_refused(text: str, tmp_path: Path):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ValueError, match=r"card\.json is not a"):
        read_card(tmp_path)
