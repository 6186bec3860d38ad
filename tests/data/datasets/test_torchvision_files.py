"""Sets of files that torchvision downloads, in the layout of their archives."""

from pathlib import Path
from urllib.error import URLError

import pytest
from PIL import Image

from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.torchvision_files import TorchvisionFiles


def files(root: Path, name: str, **more) -> TorchvisionFiles:
    options = {
        "name": name, "root": str(root), "download": False, "num_classes": None, "num_train": None,
        "num_test": None, "image_size": 8, "mean": (0.5,) * 3, "std": (0.2,) * 3,
        "augment": Augment(crop_padding=0, flip_rate=0.0, cutout=0), "unreadable": "fail",
        "cache_dir": str(root / "cache"),
    }  # fmt: skip
    return TorchvisionFiles(**options | more)


def save(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (red, 0, 0)).save(path)


def test_gtsrb(tmp_path: Path):
    top = tmp_path / "gtsrb"
    for c in range(3):
        for i in range(2):
            save(top / "GTSRB" / "Training" / f"{c:05d}" / f"{i:05d}.ppm", 10 * c + i)
    for i in range(2):
        save(top / "GTSRB" / "Final_Test" / "Images" / f"{i:05d}.ppm", 100 + i)
    with pytest.raises(
        ValueError, match=r"GTSRB is not in dataset.root"
    ):  # no labels of the test set
        files(tmp_path, "GTSRB").load()
    (top / "GT-final_test.csv").write_text("Filename;ClassId\n00000.ppm;2\n00001.ppm;0\n")
    data = files(tmp_path, "GTSRB").load()
    assert data.class_names == ("0", "1", "2") and data.test.label.tolist() == [2, 0]
    assert data.train.label.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.train.image[:, 0, 0, 0].tolist() == [0, 1, 10, 11, 20, 21]
    assert data.files is not None and data.files[0] == "gtsrb/GTSRB/Training/00000/00000.ppm"
    assert files(tmp_path, "GTSRB", num_train=3).load().train.label.tolist() == [0, 1, 2]


def test_imagenette(tmp_path: Path):
    top = tmp_path / "imagenette2-160"
    for split in ("train", "val"):
        for i, c in enumerate(("n01440764", "n03888257")):
            save(top / split / c / f"{c}_{split}.JPEG", 10 * i)
    data = files(tmp_path, "Imagenette").load()
    assert data.class_names == ("tench", "parachute")
    assert data.train.label.tolist() == data.test.label.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "file"),
    [("GTSRB", "GTSRB-Training_fixed.zip"), ("Imagenette", "imagenette2-160.tgz")],
)
def test_no_network_says_what_to_put_where(name, file, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=f"{name} is not in dataset.root"):
        files(tmp_path, name).load()

    def refuse(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(ValueError, match=f"could not download {name} .*{file}"):
        files(tmp_path, name, download=True).load()
    with pytest.raises(ValueError, match="must be one of GTSRB, Imagenette, got CIFAR10"):
        files(tmp_path, "CIFAR10")
