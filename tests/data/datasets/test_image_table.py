"""A table of images: the same pixels and rows as a folder of the same files."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.image_folder import ImageFolder
from unlearn.data.datasets.image_table import ImageTable

SHARED = {
    "num_classes": None, "num_train": None, "num_test": None, "image_size": 8, "mean": (0.5,) * 3,
    "std": (0.2,) * 3, "augment": Augment(crop_padding=0, flip_rate=0.0, cutout=0),
    "test_fraction": 0.4, "unreadable": "fail",
}  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images in two folders; the red channel is their number."""
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (9, 7), (i, 100, 0)).save(root / name / f"{i}.png")
    return root


def table(path: Path, *lines: str, **more) -> ImageTable:
    path.write_text("path,label" + ",split" * (lines[0].count(",") == 2) + "\n" + "\n".join(lines))
    options = SHARED | {"cache_dir": str(path.parent / "cache"), "path": str(path)} | more
    return ImageTable(**options)


def every(prefix: str = "", end: str = "") -> list[str]:
    return [f"{prefix}{c}/{i}.png,{c}{end}" for c in ("cat", "dog") for i in range(5)]


def test_a_table_gives_what_a_folder_gives(photos: Path):
    one = ImageFolder(root=str(photos), cache_dir=str(photos.parent / "cache"), **SHARED).load()
    two = table(photos / "labels.csv", *every()).load()
    for part in ("train", "test"):
        a, b = getattr(one, part), getattr(two, part)
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)
    assert (one.class_names, one.files, one.split_off) == (
        two.class_names,
        two.files,
        two.split_off,
    )
    assert len(two.test) == 4 and two.split_off is not None
    elsewhere = table(photos.parent / "t.csv", *every("photos/")).load()
    assert torch.equal(elsewhere.train.image, two.train.image)
    below = table(photos.parent / "u.csv", *every(), root=str(photos)).load()
    assert below.files == two.files


def test_splits_numbers_and_order_of_the_lines(photos: Path):
    lines = ["dog/4.png,10,val", "cat/1.png,10,train", "dog/0.png,9,train", "cat/3.png,9,train"]
    data = table(photos / "labels.csv", *lines).load()
    assert data.class_names == ("9", "10") and data.train.label.tolist() == [1, 0, 0]
    assert data.train.image[:, 0, 0, 0].tolist() == [1, 0, 3]
    assert data.files == ("cat/1.png", "dog/0.png", "cat/3.png") and data.split_off is None
    assert data.test.label.tolist() == [1] and data.test.image[0, 0, 0, 0] == 4


def test_missing_and_unreadable_files_are_named(photos: Path, caplog):
    with pytest.raises(ValueError, match=r"labels.csv, line 12: no file .*photos/cat/9.png"):
        table(photos / "labels.csv", *every(), "cat/9.png,cat").load()
    (photos / "cat" / "9.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 unreadable image .*cat/9.png"):
        table(photos / "labels.csv", *every(), "cat/9.png,cat").load()
    made = table(photos / "labels.csv", "cat/9.png,cat", *every(), unreadable="skip").load()
    assert len(made.train) + len(made.test) == 10 and "cat/9.png" in caplog.text
    with pytest.raises(ValueError, match=r"at least 2 readable images, got cat \(1\)"):
        table(photos / "labels.csv", "cat/1.png,cat", *every()[5:]).load()
    with pytest.raises(ValueError, match="no file"):
        table(photos / "labels.csv", "cat/" + "x" * 300 + ".png,cat", *every()[5:]).load()


def test_links_out_of_the_root_are_refused(photos: Path):
    secret = photos.parent / "secret.png"
    secret.write_bytes((photos / "cat" / "1.png").read_bytes())
    (photos / "cat" / "link.png").symlink_to(secret)
    with pytest.raises(ValueError, match=r"line 12: .*link.png links to something outside"):
        table(photos / "labels.csv", *every(), "cat/link.png,cat").load()
    (photos / "more").symlink_to(photos.parent)
    with pytest.raises(ValueError, match=r"line 12: .*more links to something outside"):
        table(photos / "labels.csv", *every(), "more/secret.png,cat").load()
