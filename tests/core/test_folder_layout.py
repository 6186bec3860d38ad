"""Layouts of image folders: what is used, or the line that refuses it."""

from pathlib import Path

import pytest

from unlearn.core.folder_layout import choose_classes, find_layout, list_classes, read_annotations


def make(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


def classes(*splits: str) -> list[str]:
    return [f"{split}/{name}" for split in splits for name in ("cat", "dog")]


@pytest.mark.parametrize("train", ["train", "training", "Train"])
@pytest.mark.parametrize("test", ["test", "val", "valid", "validation", "dev", "eval", "Val"])
def test_a_pair_of_splits_is_used(tmp_path: Path, train: str, test: str):
    layout = find_layout(make(tmp_path, *classes(train, test)))
    assert (layout.train, layout.test) == (tmp_path / train, tmp_path / test)
    assert list_classes(layout.train) == ["cat", "dog"]
    assert layout.describe().endswith(f"test images from {tmp_path / test}")


def test_a_test_folder_without_classes_gives_way_to_a_validation_folder(tmp_path: Path):
    layout = find_layout(make(tmp_path, *classes("train", "val"), "test"))  # of ImageNet
    assert layout.test == tmp_path / "val" and layout.unused == ("test",)
    assert layout.describe().endswith("; not used: test")
    both = find_layout(make(tmp_path / "both", *classes("train", "val", "test")))
    assert both.test == tmp_path / "both" / "test" and both.unused == ("val",)


def test_class_folders_alone_are_split_later(tmp_path: Path):
    layout = find_layout(make(tmp_path, "cat", "dog", ".cache"))
    assert layout.train == tmp_path and layout.test is None


def test_the_validation_folder_of_tiny_imagenet(tmp_path: Path):
    make(tmp_path, "train/n01/images", "train/n02/images", "val/images", "test/images")
    path = tmp_path / "val" / "val_annotations.txt"
    path.write_text("val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n")
    layout = find_layout(tmp_path)
    assert layout.test == tmp_path / "val" and layout.unused == ("test",)
    assert read_annotations(layout.test) == {"images/val_0.JPEG": "n02", "images/val_1.JPEG": "n01"}
    assert read_annotations(tmp_path / "train") is None
    path.write_text("val_0.JPEG n02\n")
    with pytest.raises(ValueError, match="line 1: must hold a name, a tab and a class"):
        read_annotations(tmp_path / "val")


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (classes("train"), "holds train alone, but no test/<class> or val/<class>"),
        (classes("val"), "holds val without train/<class>"),
        (classes("test", "val"), "holds test, val without train/<class>"),
        ([*classes("train", "val"), "cat"], "holds train, val, which look like splits, beside cat"),
        (["cat", "dog", "dev"], "holds dev, which look like splits, beside cat, dog"),
        ([*classes("train", "training", "test")], "keep one of train, training"),
        ([*classes("train"), "test"], "but test holds no class folders"),
        ([*classes("train"), "test", "val"], "but test, val hold no class folders"),
    ],
)
def test_splits_are_never_taken_for_classes(tmp_path: Path, folders: list[str], said: str):
    with pytest.raises(ValueError, match="^dataset.root: ") as caught:  # noqa: RUF043
        find_layout(make(tmp_path, *folders))
    assert said in str(caught.value)


def test_no_folder_and_no_classes(tmp_path: Path):
    with pytest.raises(ValueError, match="no folder"):
        find_layout(tmp_path / "absent")
    with pytest.raises(ValueError, match="two or more class folders, got"):
        list_classes(make(tmp_path / "one", "cat"))


def test_some_of_the_classes(tmp_path: Path):
    names = ["ant", "bee", "cat"]
    assert choose_classes(names, None) == names
    assert choose_classes(names, ["cat", "ant"]) == ["ant", "cat"]
    path = tmp_path / "classes.txt"
    path.write_text("# two\ncat\n\nbee\n")
    assert choose_classes(names, str(path)) == ["bee", "cat"]
    for wanted, said in (
        (["ant", "cow"], r"cow \(1\) not among 3 classes"),
        (["ant"], "two or more different classes, got 1 names, 1 of them different"),
        (["ant", "cat", "ant"], "got 3 names, 2 of them different"),
        ("nowhere", "a list of classes, or a file with one a line; cannot read nowhere"),
    ):
        with pytest.raises(ValueError, match=said):
            choose_classes(names, wanted)
