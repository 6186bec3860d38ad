"""A class per folder: real JPEGs, broken files, links, splits and the cache's key."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.image_decoding import decode_image
from unlearn.data.datasets.image_folder import ImageFolder

OFF = Augment(crop_padding=0, flip_rate=0.0, cutout=0)
ALL = {"num_train": None, "num_test": None, "augment": OFF}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen real images of each class and split; read from the archive once."""
    archive = Path(__file__).resolve().parents[4] / "shared" / "data" / "cifar10-jpeg.tar.gz"
    if not archive.is_file():
        pytest.skip("no ../shared/data/cifar10-jpeg.tar.gz beside the repository")
    root = tmp_path_factory.mktemp("jpegs")
    counts: dict[str, int] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            folder = str(Path(member.name).parent)
            if member.isfile() and counts.get(folder, 0) < 15:
                counts[folder] = counts.get(folder, 0) + 1
                safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # 3.11.4
                tar.extract(member, root, **safe)
    return root


@pytest.fixture
def jpegs(extracted: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(extracted, tmp_path / "cifar"))


def made(root: Path, **count: int) -> Path:
    """Make small images: so many per class folder."""
    for name, n in count.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (9, 7), (i, 0, 0)).save(root / name / f"{i}.png")
    return root


def folder(root, tmp_path, **more):
    options = {
        "num_classes": None, "image_size": 32, "mean": (0.5,) * 3, "std": (0.2,) * 3,
        "test_fraction": 0.2, "unreadable": "fail", "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    return ImageFolder(root=str(root), **(ALL | options | more))


def test_imagefolder_reads_jpegs_once(jpegs, tmp_path):
    data = folder(jpegs, tmp_path).load()
    assert (len(data.train), len(data.test), data.train.num_classes) == (150, 150, 10)
    assert data.class_names[0] == "airplane"
    assert data.files is not None
    first = (jpegs / "train" / data.files[0]).read_bytes()
    assert torch.equal(data.train.image[0], decode_image(first, 32, "RGB"))
    stamps = [p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("*.*")]
    again = folder(jpegs, tmp_path).load()
    assert torch.equal(again.train.image, data.train.image)
    assert stamps == [p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("*.*")]


def test_imagefolder_splits_off_a_test_set_and_resizes(jpegs, tmp_path):
    data = folder(jpegs / "train", tmp_path, image_size=16).load()
    assert (len(data.train), len(data.test)) == (120, 30)
    assert data.test.label.bincount().tolist() == [3] * 10
    assert data.train.image.shape[1:] == (3, 16, 16)


def test_broken_images_are_named(jpegs, tmp_path, caplog):
    (jpegs / "train" / "cat" / "broken.jpg").write_bytes(b"no image")
    for _ in range(2):  # decoded, then from the cache
        with pytest.raises(ValueError, match=r"1 unreadable image .*cat/broken.jpg"):
            folder(jpegs, tmp_path).load()
    data = folder(jpegs, tmp_path, unreadable="skip").load()
    assert len(data.train) == 150
    assert "cat/broken.jpg" in caplog.text


def test_imagefolder_refuses_what_is_no_data_set(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        folder(tmp_path / "absent", tmp_path).load()
    (tmp_path / "one" / "class").mkdir(parents=True)
    with pytest.raises(ValueError, match="two or more class folders"):
        folder(tmp_path / "one", tmp_path).load()
    (tmp_path / "one" / "other").mkdir()
    with pytest.raises(ValueError, match="no image"):
        folder(tmp_path / "one", tmp_path).load()


def test_links_out_of_the_folder_are_refused(jpegs, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(next((jpegs / "train" / "cat").iterdir()).read_bytes())
    (jpegs / "train" / "cat" / "link.jpg").symlink_to(secret)
    with pytest.raises(ValueError, match="outside"):
        folder(jpegs, tmp_path).load()


def test_each_class_needs_images(tmp_path):
    with pytest.raises(ValueError, match=r"at least 2 readable images, got b \(1\), c \(0\)"):
        folder(made(tmp_path / "r", a=3, b=1, c=0), tmp_path).load()
    data = folder(made(tmp_path / "s", a=2, b=2), tmp_path, test_fraction=0.9).load()
    assert data.train.label.tolist() == data.test.label.tolist() == [0, 1]


def test_test_classes_must_be_among_the_training_classes(tmp_path):
    made(tmp_path / "r" / "train", a=2, b=2)
    with pytest.raises(ValueError, match="holds train alone"):
        folder(tmp_path / "r", tmp_path).load()
    made(tmp_path / "r" / "test", a=1, extra=1)
    with pytest.raises(ValueError, match=r"without training images: \['extra'\]"):
        folder(tmp_path / "r", tmp_path).load()


def test_linked_folders_out_of_the_root_are_refused(tmp_path):
    root, out = made(tmp_path / "r", a=2, b=2), made(tmp_path / "out", secret=2)
    (root / "c").symlink_to(out / "secret")
    with pytest.raises(ValueError, match="outside"):
        folder(root, tmp_path).load()


def test_other_files_are_logged_and_lost_ones_named(tmp_path, caplog):
    root = made(tmp_path / "r", a=3, b=3)
    (root / "a" / "notes.txt").write_text("no image")
    folder(root, tmp_path).load()
    assert "a/notes.txt" in caplog.text
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(ValueError, match=r"a/gone\.png"):
        folder(root, tmp_path).load()


def test_sixteen_bits_keep_their_range():
    packed = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0x8000, dtype=np.uint16)).save(packed, "PNG")
    assert (decode_image(packed.getvalue(), 4, "RGB") == 128).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_transparent_palettes_give_the_same_pixels_without_a_warning(mode):
    colours = torch.arange(192, dtype=torch.uint8).view(8, 8, 3).numpy()
    palette = Image.fromarray(colours).convert("P")
    plain, clear = io.BytesIO(), io.BytesIO()
    palette.save(plain, "PNG")
    palette.save(clear, "PNG", transparency=bytes(range(256)))
    assert torch.equal(
        decode_image(clear.getvalue(), 8, mode), decode_image(plain.getvalue(), 8, mode)
    )


def test_a_changed_file_or_size_is_decoded_anew(tmp_path):
    root = made(tmp_path / "r", a=3, b=3)
    assert (folder(root, tmp_path).load().train.image == 128).sum() == 0
    for path in root.rglob("*.png"):
        Image.new("RGB", (9, 7), (128, 128, 128)).save(path)
    assert (folder(root, tmp_path).load().train.image == 128).all()
    assert folder(root, tmp_path, image_size=16).load().train.image.shape[-1] == 16


def test_chosen_files_belong_to_the_chosen_images(tmp_path):
    root = made(tmp_path / "r", a=20, b=20)
    data = folder(root, tmp_path, num_train=10).load()
    assert data.files is not None
    assert data.train.label.bincount().tolist() == [5, 5]
    assert data.train.index.tolist() == list(range(10))
    # The made images carry their number in the red channel.
    assert [int(Path(f).stem) for f in data.files] == data.train.image[:, 0, 0, 0].tolist()
    assert [f.split("/")[0] for f in data.files] == ["ab"[c] for c in data.train.label]


def test_channels_are_grey_or_colour(tmp_path):
    with pytest.raises(ValueError, match=r"3 values \(RGB\) or 1"):
        folder(tmp_path, tmp_path, mean=(0.5, 0.5), std=(0.2, 0.2))


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    root = made(tmp_path / "r", a=3, b=3)
    os.rename(root / "a" / "0.png", os.fsencode(root / "a") + b"/\xff.png")
    with pytest.raises(ValueError, match=r"is not UTF-8; rename it") as caught:
        folder(root, tmp_path).load()
    str(caught.value).encode()


def test_layouts_of_imagenet_and_tiny_imagenet_are_loaded(tmp_path, caplog):
    caplog.set_level("INFO")
    root = tmp_path / "imagenet"
    made(root / "train", cat=3, dog=2)
    made(root / "val", cat=1, dog=2)
    data = folder(root, tmp_path).load()
    assert data.class_names == ("cat", "dog") and (len(data.train), len(data.test)) == (5, 3)
    assert f"test images from {root / 'val'}" in caplog.text

    root = tmp_path / "tiny"
    made(root / "train" / "n01", images=2)
    made(root / "train" / "n02", images=2)
    made(root / "val", images=3)
    lines = "".join(f"{i}.png\tn0{2 - i % 2}\t0\t0\t1\t1\n" for i in range(3))
    (root / "val" / "val_annotations.txt").write_text(lines)
    data = folder(root, tmp_path).load()
    assert data.class_names == ("n01", "n02") and data.train.label.tolist() == [0, 0, 1, 1]
    assert data.test.label.tolist() == [1, 0, 1]
    made(root / "train" / "n03", images=1)
    few = folder(root, tmp_path, classes=["n02", "n03"])
    (root / "val" / "val_annotations.txt").write_text(lines.replace("n01", "n03"))
    few = few.load()
    assert few.class_names == ("n02", "n03") and few.train.label.tolist() == [0, 0, 1]
    assert few.test.label.tolist() == [0, 1, 0]
    (root / "val" / "val_annotations.txt").write_text(lines.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"val_annotations\.txt does not name images/1\.png"):
        folder(root, tmp_path).load()


def test_classes_are_chosen(tmp_path):
    root = tmp_path / "imagenet"
    made(root / "train", ant=2, bee=3, cat=1)
    made(root / "val", ant=1, bee=2, cat=3)
    (tmp_path / "classes.txt").write_text("cat\nant\n")
    data = folder(root, tmp_path, classes=str(tmp_path / "classes.txt")).load()
    assert data.class_names == ("ant", "cat")
    assert data.train.label.tolist() == [0, 0, 1] and data.test.label.tolist() == [0, 1, 1, 1]
    with pytest.raises(ValueError, match=r"dataset.classes: cow \(1\) not among 3 classes"):
        folder(root, tmp_path, classes=["ant", "cow"]).load()
