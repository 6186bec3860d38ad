"""Arguments of ``heal`` in the forms that users have: arrays, masks, files, state dicts, devices."""

import copy
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from unlearn import heal

FEW = {"method": "original", "device": "cpu"}
LISTED = [20, 21, 22]


def forgotten(model, **more) -> list[int]:
    result = heal(model, **{**FEW, **more})
    return result.context.task.forget_indices().tolist()


@pytest.mark.parametrize(
    "forget",
    [
        np.array(LISTED), np.array(LISTED, dtype=np.uint8), [np.int64(i) for i in LISTED],
        np.isin(np.arange(60), LISTED), torch.isin(torch.arange(60), torch.tensor(LISTED)),
        torch.tensor(LISTED, dtype=torch.int32),
    ],
    ids=["ids", "uint8", "list", "mask", "torch mask", "int32"],
)  # fmt: skip
def test_ids_may_be_arrays_or_masks(trained, data, forget):
    assert forgotten(trained, retain=data, forget=forget) == LISTED
    assert forgotten(trained, retain=data, forget=[np.int64(3), np.int64(5)]) == [3, 5]


def test_arrays_give_what_tensors_give(trained, data):
    arrays = tuple(part.numpy() for part in data)
    pairs = [(image, int(label)) for image, label in zip(*arrays, strict=True)]
    wanted = heal(trained, retain=data, forget=LISTED, **FEW)
    for retain in (arrays, pairs):
        found = heal(trained, retain=retain, forget=LISTED, **FEW)
        assert torch.equal(found.context.task.train.image, wanted.context.task.train.image)
        assert torch.equal(found.context.task.train.label, wanted.context.task.train.label)
    scale = {"mean": np.array([0.5] * 3), "std": torch.tensor([0.5] * 3)}
    images = (data[0] * 127).byte()
    assert forgotten(trained, retain=(images, data[1]), forget=LISTED, **scale) == LISTED


def test_a_model_may_be_a_file_or_a_state_dict(trained, data, tmp_path):
    state = trained.state_dict()
    torch.save({"state_dict": {f"model.{k}": v for k, v in state.items()}}, tmp_path / "mine.ckpt")
    plain = [nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
             nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
             nn.Linear(8, 3)]  # fmt: skip
    empty = nn.Sequential(*plain)
    before = copy.deepcopy(empty.state_dict())
    for model, network in (
        (tmp_path / "mine.ckpt", empty), (str(tmp_path / "mine.ckpt"), lambda: copy.deepcopy(empty)), (state, empty),
    ):  # fmt: skip
        result = heal(model, network=network, retain=data, forget=LISTED, **FEW)
        assert torch.equal(result.model[7].bias, trained[7].bias)
    assert all(torch.equal(v, before[k]) for k, v in empty.state_dict().items())


def test_the_device_is_named_as_torch_names_it(trained, data):
    assert forgotten(trained, retain=data, forget=LISTED, device=torch.device("cpu")) == LISTED
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch finds no GPU; use auto or cpu"):
            heal(trained, retain=data, forget=LISTED, method="original", device="cuda")


def test_without_test_data_nothing_is_said(trained, data, caplog, capfd):
    with caplog.at_level(logging.INFO):
        result = heal(trained, retain=data, forget=LISTED, **FEW)
    assert caplog.text == "" and capfd.readouterr() == ("", "")
    assert result.metrics["test/accuracy"] is None
    assert not [key for key in result.metrics if key.startswith("failed/")]


def wrong(data):
    image, label = data
    broken = image.clone()
    broken[3, 0, 0, 0], broken[5] = float("nan"), float("inf")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
    return {
        "last": ({"retain": (image.permute(0, 2, 3, 1), label)},
                 r"retain: images are \(N, H, W, C\) = \(60, 12, 12, 3\).*permute\(0, 3, 1, 2\)"),
        "one mean": ({"retain": (image.byte(), label), "mean": (0.5,), "std": (0.5,) * 3},
                     r"mean must hold one value for each of 3 channels, such as mean=\(0.5, 0.5"),
        "a number": ({"mean": 0.5, "std": 0.5}, "mean must hold one value per channel"),
        "nan": ({"retain": (broken, label)},
                "2 of 60 images hold NaN or infinite values, first at position 3"),
        "long": ({"retain": (image.long(), label)}, "must be uint8 in 0..255 or .* got int64"),
        "labels": ({"retain": (image, label + 1)}, r"labels must be in 0..2, .* got 1..3"),
        "soft": ({"retain": (image, label.float())}, "labels must be whole numbers"),
        "ids": ({"forget": np.array([1.0])}, "ids, whole numbers"),
        "alike": ({"forget": (image[:2, :, 1:], label[:2])}, "forget and retain need images alike"),
        "grey": ({"retain": (image[:, :1], label)}, r"model cannot read images \(1, 12, 12\)"),
        "no network": ({"model": flat.state_dict()}, "pass the network they belong to"),
        "two": ({"network": flat}, "network is used with weights alone"),
        "no file": ({"model": "nope.pt", "network": flat}, "model: no file nope.pt"),
        "other": ({"model": flat.state_dict(), "network": nn.Linear(2, 2)}, "does not fit Linear"),
        "import": ({"model": flat.state_dict(), "network": "nowhere:net"}, "cannot import nowhere"),
        "device": ({"device": "mps"}, "device must be auto, cpu, gpu or cuda, got mps"),
        "second": ({"device": "cuda:1"}, "set CUDA_VISIBLE_DEVICES=1"),
        "kind": ({"model": 3}, "model must be a torch.nn.Module, a checkpoint file"),
    }  # fmt: skip


@pytest.mark.parametrize("case", ["last", "one mean", "a number", "nan", "long", "labels", "soft",
                                  "ids", "alike", "grey", "no network", "two", "no file", "other",
                                  "import", "device", "second", "kind"])  # fmt: skip
def test_wrong_arguments_are_explained(trained, data, case):
    more, message = wrong(data)[case]
    given = {"model": trained, "retain": data, "forget": LISTED, **FEW, **more}
    with pytest.raises(ValueError, match=message) as refusal:
        heal(given.pop("model"), **given)
    assert "\n" not in str(refusal.value)


def test_type_checkers_know_the_public_names(tmp_path):
    source = tmp_path / "use.py"
    source.write_text(
        "import unlearn\nreveal_type(unlearn.heal)\nreveal_type(unlearn.load('r'))\n"
        "unlearn.heal(3, retain=1, forget=2)\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(source)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert '"unlearn.load(\'r\')" is "Module"' in checked.stdout, checked.stdout
    assert '"Literal[3]" is not assignable' in checked.stdout
