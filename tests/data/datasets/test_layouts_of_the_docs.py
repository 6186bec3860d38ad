"""Every row of the docs' table of folder layouts: the images that are loaded, or the line that refuses it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.utils import instantiate
from PIL import Image

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.types import ImageSet
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.image_folder import ImageFolder

DOCS = Path(__file__).resolve().parents[3] / "docs" / "your_model.md"
CLASSES = ("cat", "dog")


def draw(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (9, 8), (number, 0, 0)).save(folder / f"{number}.png")


def make_splits(root: Path, **counts: int) -> None:
    """Make class folders in each split, with so many images each."""
    for split, count in counts.items():
        for name in CLASSES:
            draw(root / split / name, count)


def make_tiny_imagenet(root: Path) -> None:
    for name in CLASSES:
        draw(root / "train" / name / "images", 5)
    draw(root / "val" / "images", 4)
    lines = (f"{number}.png\t{CLASSES[number % 2]}\t0\t0\t1\t1\n" for number in range(4))
    (root / "val" / "val_annotations.txt").write_text("".join(lines))


def make_classes(root: Path, *more: str) -> None:
    for name in (*CLASSES, *more):
        draw(root / name, 5)


def make_saved(root: Path) -> None:
    root.mkdir()
    (root / "dataset_dict.json").write_text("{}")


MAKERS: dict[str, Callable[[Path], None]] = {
    "`train/<class>` or `training/<class>`, and `test/<class>`": lambda root: make_splits(
        root, training=5, test=2, val=3
    ),
    "the same with `val`, `valid`, `validation`, `dev` or `eval`, and no `test` with class folders (ImageNet)": (
        lambda root: make_splits(root, train=5, dev=2)
    ),
    "`train/<class>/images` and `val/images` with `val_annotations.txt` (Tiny-ImageNet)": make_tiny_imagenet,
    "`<class>` alone": make_classes,
    "`train/<class>` alone": lambda root: make_splits(root, train=2),
    "`val/<class>` alone": lambda root: make_splits(root, val=2),
    "`train` and `val` beside other folders": lambda root: (
        make_splits(root, train=2, val=2),
        draw(root / "cat", 1),
    )[0],
    "`train` and `training`": lambda root: make_splits(root, train=2, training=2, test=2),
    "`train/<class>` and `test` without class folders": lambda root: (
        make_splits(root, train=2),
        (root / "test").mkdir(),
    )[0],
    "one folder alone, or images without folders": lambda root: draw(root, 2),
    "no such folder": lambda root: None,
    "a folder saved by the package datasets": make_saved,
}
SIZES = dict(zip(MAKERS, [(10, 4), (10, 4), (10, 4), (8, 2)], strict=False))
"""Training and test images of the rows that are loaded, in the order of ``MAKERS``."""


def read_rows() -> dict[str, list[str]]:
    """Return the cells of the table of folders, by the first."""
    text = DOCS.read_text(encoding="utf-8")
    table = text[text.index("| folders in `dataset.root`") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows[2:]}


def load(root: Path) -> tuple[ImageSet, ImageSet]:
    data = ImageFolder(
        root=str(root), num_classes=None, num_train=None, num_test=None, image_size=8,
        mean=(0.5,) * 3, std=(0.2,) * 3, augment=Augment(crop_padding=0, flip_rate=0.0, cutout=0),
        test_fraction=0.2, unreadable="fail", cache_dir=str(root.parent / "cache"),
    ).load()  # fmt: skip
    return data.train, data.test


def test_the_table_has_the_rows_that_are_tested():
    assert sorted(read_rows()) == sorted(MAKERS)


@pytest.mark.parametrize("row", MAKERS)
def test_a_row_is_loaded_or_refused_as_the_table_says(row: str, tmp_path: Path, caplog):
    caplog.set_level("INFO")
    root = tmp_path / "root"
    MAKERS[row](root)
    used, said = read_rows()[row]
    if used != "refused":
        train, test = load(root)
        assert (len(train), len(test)) == SIZES[row]
        assert train.label.unique().tolist() == test.label.unique().tolist() == [0, 1]
        assert f"images from {root}" in caplog.text
        return
    with pytest.raises(ValueError, match=r"^dataset\.root: ") as caught:
        load(root)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and str(root) in message
    for part in re.split(r"\.\.\.", said.strip("`")):
        assert part.strip(" []") in message, message


@pytest.mark.parametrize("name", ["tiny_imagenet", "imagenet", "imagenet100"])
def test_named_sets_of_folders_are_loaded(name: str, tmp_path: Path):
    root = tmp_path / "root"
    if name == "tiny_imagenet":
        make_tiny_imagenet(root)
    else:
        make_splits(root, train=5, val=2)
    words = [f"dataset={name}", f"dataset.root={root}", "dataset.image_size=8", "method=finetune"]
    words += ["dataset.classes=[cat,dog]"] * (name == "imagenet100")
    with enable_composition([config_dir()]):
        config = to_plain_config(compose_config("unlearn", words, [config_dir()]))["dataset"]
    data = instantiate(
        {**config, "cache_dir": str(tmp_path / "cache"), "num_classes": None}, _convert_="all"
    ).load()
    assert (len(data.train), len(data.test)) == (10, 4) and data.class_names == CLASSES
