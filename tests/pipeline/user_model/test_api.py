"""The Python interface: tensors, a Dataset or a folder; the same result as the command line's."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import unlearn
from unlearn import heal
from unlearn.data.datasets.in_memory import make_image_set
from unlearn.pipeline.original_agreement import score_linear_map

FEW = {
    "method": "npo",
    "options": {"epochs": 2, "optimizer.lr": 0.1, "select": "last", "gamma": 0.0},
    "device": "cpu",
}
LISTED = torch.arange(20, 24)


def parts(data):
    rest = torch.tensor([i for i in range(60) if i not in LISTED])
    return {"forget": (data[0][LISTED], data[1][LISTED]), "retain": (data[0][rest], data[1][rest])}


def test_tensors_and_datasets_give_the_same_and_leave_the_model_alone(trained, data, tmp_path):
    before = copy.deepcopy(trained.state_dict())
    given = parts(data)
    result = heal(trained, **given, test=data, **FEW)
    assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())
    assert not torch.equal(result.model[7].bias, before["7.bias"])
    said = result.model(given["forget"][0]).argmax(1)
    assert result.metrics["forget/agreement"] == (said == 1).float().mean()
    assert result.metrics["test/accuracy_original"] > 0.9
    sets = {name: TensorDataset(*part) for name, part in given.items()}
    again = heal(trained, **sets, **FEW)
    assert torch.equal(again.model[7].bias, result.model[7].bias)
    assert again.metrics["test/accuracy_original"] is None  # nothing is held out
    text = again.report(tmp_path / "healed.html").read_text()
    assert "No held-out set" in text
    assert "a model passed in Python" in text


def test_rows_of_one_set(trained, data):
    whole = heal(trained, retain=data, forget=LISTED, **FEW)
    assert whole.metrics["forget/agreement_original"] > 0.5
    assert len(whole.context.task.forget_indices()) == 4
    bytes_ = ((data[0] * 0.5 + 0.5) * 255).round().to(torch.uint8)
    scaled = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    other = heal(trained, retain=(bytes_, data[1]), forget=LISTED.tolist(), **scaled, **FEW)
    torch.testing.assert_close(other.model[7].bias, whole.model[7].bias, rtol=1e-3, atol=1e-4)


def test_a_class_that_a_method_ruins_is_said(trained, data, caplog):
    """Whatever the method: here one that turns a class off."""
    broken = {"epochs": 12, "optimizer.lr": 1.0, "select": "last", "gamma": 0.0, "batch_size": 60}
    result = heal(trained, retain=data, forget=LISTED, test=data, **FEW | {"options": broken})
    lost = result.metrics["worst_class/lost"]
    assert lost
    assert f"class {lost.split(', ')[0]} " in caplog.text
    assert "held-out images" in caplog.text


def test_a_folder_and_a_list(trained, photos, bad, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_HOME", str(tmp_path))
    own = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "image_size": 12}
    result = heal(trained, retain=photos, forget=bad, method="original", **own)
    assert result.metrics["forget/accuracy_known_original"] is not None
    assert result.metrics["test/accuracy"] > 0.9
    names = heal(
        trained, retain=str(photos), forget=["ash/00.png", "ash/01.png"], method="original", **own
    )
    assert names.context.task.forget_indices().tolist() == [20, 21]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"forget": torch.arange(60)}, "forget must name 1..59 of 60 samples, got 60"),
        ({"forget": [3, 3]}, "forget must not name a sample twice"),
        ({"forget": [60]}, "60 is not an id in 0..59"),
        ({"forget": 7}, r"forget must be \(images, labels\), a Dataset or a folder, got int"),
        ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "float images are taken as network input"),
        ({"options": {"gama": 1}}, "unknown key 'method.gama'"),
        ({"method": "remm"}, "unknown method 'remm'"),
        ({"class_names": ["a"]}, "class_names must have 3"),
        ({"class_names": ["a", "b", "c"], "retain": "x"}, "need mean, std and image_size"),
    ],
)
def test_wrong_input(trained, data, more, message):
    with pytest.raises(ValueError, match=message):
        heal(trained, **{"retain": data, "forget": LISTED, "method": "npo"} | more)


class Brightness(nn.Module):
    """Whether an image in [0, 1] is brighter than 0.5."""

    def __init__(self):
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        bright = x.mean((1, 2, 3)) - self.limit
        return torch.stack([-bright, bright], 1)


def test_images_of_another_scale_are_noticed():
    label = torch.arange(40) % 2
    images = (0.2 + 0.6 * label)[:, None, None, None].expand(40, 3, 4, 4)
    assert heal(Brightness(), retain=(images, label), forget=[1], method="original").model
    with pytest.raises(ValueError, match=r"another input fits better .*: divide the images by 255"):
        heal(Brightness(), retain=(255 * images, label), forget=[1], method="original")


def test_a_linear_map_of_small_images_says_what_data_allow():
    label = torch.arange(120) % 3
    image = torch.zeros(120, 3, 16, 16)
    image[torch.arange(120), label] = 1.0
    mixed = label[torch.randperm(120, generator=torch.Generator().manual_seed(0))]
    sets = [
        make_image_set(image, x, num_classes=3, mean=None, std=None, what="x")
        for x in (label, mixed)
    ]
    assert score_linear_map(sets[0]) == 1.0
    assert score_linear_map(sets[1]) < 0.6
    assert score_linear_map(sets[0].rows(torch.arange(50))) is None  # too few to say


def test_bytes_need_the_model_s_own_scale(trained, data):
    images = torch.zeros(60, 3, 12, 12, dtype=torch.uint8)
    with pytest.raises(ValueError, match="uint8 images need mean and std"):
        heal(trained, retain=(images, data[1]), forget=LISTED)


def test_a_network_without_room_is_refused(data):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
    with pytest.raises(ValueError, match="Sequential cannot be expanded"):
        heal(flat, retain=data, forget=LISTED, method="rem")
    assert heal(flat, retain=data, forget=LISTED, **FEW).model is not None


def test_the_default_chooses_and_says_what_to_expect(trained, data, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_HOME", str(tmp_path / "home"))
    kept = tmp_path / "trials"
    call = {
        "retain": data, "forget": torch.arange(20, 28), "test": data, "device": "cpu",
        "options": {"force": True, "factors": [], "retraining_epochs": 40},
        "overrides": [f"paths.checkpoints={kept}"], "class_names": ["ash", "birch", "cedar"],
    }  # fmt: skip
    result = heal(trained, **call)
    metrics = result.metrics
    count = len(list(kept.glob("*/model.pt")))
    assert count >= 2
    assert metrics["auto/listed"] == 8 and 0 < metrics["auto/cost"]
    assert len(metrics["auto/tried"].split(", ")) >= 2
    lines = result.summary
    assert "Held-out accuracy: " in lines[1] and "Worst class: " in lines[1]
    assert "Tried (score ± standard error)" in lines[2]
    text = result.report(tmp_path / "healed.html").read_text()
    assert text.index("Held-out accuracy: ") < text.index("Of the 8 listed images")
    rows = [one.row for one in result.suggest_next()]
    assert not set(rows) & set(range(20, 28))
    assert all(one.suggested != one.given == int(data[1][one.row]) for one in result.suggest_next())
    again = heal(trained, **call)  # trials are finished: the same choice at a lower cost
    assert len(list(kept.glob("*/model.pt"))) == count
    assert again.metrics["auto/tried"] == metrics["auto/tried"]
    assert again.metrics["images_seen"] <= metrics["images_seen"]
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_few_listed_images_prove_nothing(trained, data, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("UNLEARN_HOME", str(tmp_path))
    result = heal(trained, retain=data, forget=LISTED, options={"force": True}, device="cpu")
    assert result.metrics["auto/method"] in ("rem", "original")
    assert "nothing can be proved with 4 listed samples" in caplog.text
    if result.metrics["auto/method"] == "rem":
        assert result.summary[0].startswith("Nothing can be proved about bad images")
    assert "Agreement with the labels of images that are not listed" in result.summary[1]
    assert not (tmp_path / "checkpoints").exists()  # a call leaves no files


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, unlearn; sys.exit(bool({'torch', 'hydra', 'lightning'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"heal", "load"} <= set(unlearn.__all__)
