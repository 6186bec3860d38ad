"""Folders saved by the package datasets: read offline, columns by type, classes in their own order."""

import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image

from unlearn.core.folder_layout import find_layout
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.huggingface import HuggingFaceDataset

OPTIONS = {
    "num_classes": None, "num_train": None, "num_test": None, "image_size": 8, "mean": (0.5,) * 3,
    "std": (0.2,) * 3, "augment": Augment(crop_padding=0, flip_rate=0.0, cutout=0), "name": None,
    "path": None, "subset": None, "revision": None, "image_column": None, "label_column": None,
    "train_split": None, "test_split": None, "test_fraction": 0.4, "unreadable": "fail",
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore:Cannot (locate reference|pickle)"  # dill, of data sets made from lists
)
needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="the package datasets is not installed"
)


def images(numbers, folder: Path) -> list[str]:
    """Make images whose red channel is their number; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for n in numbers:
        Image.new("RGB", (9, 7), (n, 100, 0)).save(folder / f"{n}.png")
        names.append(str(folder / f"{n}.png"))
    return names


def split(numbers, tmp_path: Path, *, names=("zebra", "ant"), **more):
    import datasets

    label = [n % len(names) for n in numbers]
    features = {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=list(names))}
    columns = {"photo": images(numbers, tmp_path / "made"), "kind": label}
    for key, (kind, values) in more.items():
        features[key], columns[key] = kind, values
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def saved(tmp_path: Path, **splits) -> str:
    import datasets

    folder = tmp_path / "saved"
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    for path in (tmp_path / "made").glob("*.png"):
        path.unlink()  # the folder holds all that is needed
    return str(folder)


def load(tmp_path: Path, **more):
    return HuggingFaceDataset(**OPTIONS | {"cache_dir": str(tmp_path / "cache")} | more).load()


@needs_datasets
def test_splits_pixels_and_order_of_classes(tmp_path: Path):
    splits = {"train": split(range(6), tmp_path), "validation": split(range(10, 14), tmp_path)}
    path = saved(tmp_path, **splits)
    data = load(tmp_path, path=path)
    assert data.class_names == ("zebra", "ant")
    assert data.train.label.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.train.image[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert data.test.image[:, 0, 0, 0].tolist() == [10, 11, 12, 13]
    assert data.files is not None and data.files[1] == "train/0000001.png"
    again = load(tmp_path, path=path, num_train=4)
    assert len(again.train) == 4
    assert len(list((tmp_path / "cache" / "huggingface").glob("*[!k]"))) == 1  # written once
    with pytest.raises(ValueError, match=r"write dataset=huggingface dataset.path=.*saved"):
        find_layout(Path(path))


@needs_datasets
def test_one_split_is_divided_and_rows_are_named(tmp_path: Path):
    split(range(10), tmp_path).save_to_disk(str(tmp_path / "one"))
    data = load(tmp_path, path=str(tmp_path / "one"))
    assert (len(data.train), len(data.test)) == (6, 4)
    assert data.split_off is not None and len(data.split_off) == 4


@needs_datasets
def test_columns_and_splits_that_are_not_clear_are_asked_for(tmp_path: Path):
    import datasets

    more = {
        "mask": (datasets.Image(), images(range(6), tmp_path / "made")),
        "text": (datasets.Value("string"), ["b", "a", "b", "a", "b", "a"]),
    }
    path = saved(tmp_path, fit=split(range(6), tmp_path, **more))
    with pytest.raises(ValueError, match=r"dataset.train_split must be set to one of fit$"):
        load(tmp_path, path=path)
    own = {"path": path, "train_split": "fit"}
    with pytest.raises(
        ValueError, match=r"image_column must be set to one of the columns photo \(Image\), kind"
    ):
        load(tmp_path, **own)
    with pytest.raises(ValueError, match=r"label_column must be .*, got absent$"):
        load(tmp_path, **own, image_column="photo", label_column="absent")
    with pytest.raises(ValueError, match=r"image_column=text holds Value, not images"):
        load(tmp_path, **own, image_column="text")
    with pytest.raises(ValueError, match=r"test_split must be one of fit, got test"):
        load(tmp_path, **own, image_column="photo", test_split="test")
    data = load(tmp_path, **own, image_column="photo", label_column="text")
    assert data.class_names == ("a", "b")  # plain values have no order of their own


@needs_datasets
def test_unlabelled_rows_are_refused(tmp_path: Path):
    test = split(range(4), tmp_path).map(lambda row: {"kind": -1}, load_from_cache_file=False)
    path = saved(tmp_path, train=split(range(6), tmp_path), test=test)
    with pytest.raises(ValueError, match=r"row 0 of the split test has no label: choose another"):
        load(tmp_path, path=path)


@needs_datasets
def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"dataset.path: .*nowhere is no folder saved by datasets"):
        load(tmp_path, path=str(tmp_path / "nowhere"))
    import datasets

    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        ValueError, match=r"cannot load dataset.name=a/b from the hub \(no network\)"
    ):
        load(tmp_path, name="a/b")


def test_exactly_one_place_is_given_and_the_package_is_named(tmp_path: Path, monkeypatch):
    for more in ({}, {"name": "a/b", "path": "c"}):
        with pytest.raises(ValueError, match=r"needs dataset.name, .* or dataset.path"):
            load(tmp_path, **more)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'unlearn-bench\[hf\]'"):
        load(tmp_path, name="a/b")
