"""Normalisation, augmentation, the embedded sets and the real files."""

import gzip
import io
import shutil
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn.data.augment import Augment
from unlearn.data.dataset import balanced, resize
from unlearn.data.digits import Digits
from unlearn.data.image_folder import ImageFolder, decode
from unlearn.data.torchvision_sets import TorchvisionDataset
from unlearn.data.view import Normalize

OFF = Augment(crop_padding=0, flip_rate=0.0, cutout=0)
ALL = {"num_train": None, "num_test": None, "augment": OFF}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_normalize_by_hand():
    view = Normalize((0.5, 0.0), (0.25, 1.0))
    image = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    assert torch.allclose(view(image, torch.tensor([0])).flatten(), torch.tensor([-2.0, 1.0]))
    with pytest.raises(ValueError, match="channels"):
        view(image[:, :1], torch.tensor([0]))


def test_augmentation_off_is_the_identity():
    image = torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8)
    assert OFF(image, generator()) is image


def test_flip_mirrors_about_the_wanted_share():
    image = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(2000, 1, 4, 4).contiguous()
    out = Augment(crop_padding=0, flip_rate=0.3, cutout=0)(image, generator())
    mirrored = (out == image.flip(-1)).flatten(1).all(1)
    assert ((out == image).flatten(1).all(1) | mirrored).all()
    assert abs(mirrored.float().mean() - 0.3) < 0.04


def test_crop_equals_a_naive_loop():
    image = torch.randint(1, 255, (64, 2, 5, 5), dtype=torch.uint8)
    out = Augment(crop_padding=2, flip_rate=0.0, cutout=0)(image, generator())
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    seen = set()
    for one, wide in zip(out, padded, strict=True):
        match = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(one, wide[:, y : y + 5, x : x + 5])
        ]
        assert match
        seen.add(match[0])
    assert len(seen) > 15


def test_cutout_clears_a_square_and_draws_repeat():
    image = torch.full((200, 1, 9, 9), 7, dtype=torch.uint8)
    augment = Augment(crop_padding=0, flip_rate=0.0, cutout=3)
    out = augment(image, generator())
    cleared = (out == 0).flatten(1).sum(1)
    assert cleared.max() == 9
    assert cleared.min() >= 4
    assert torch.equal(out, augment(image, generator()))
    assert not torch.equal(out, augment(image, generator(1)))


@pytest.mark.parametrize("bad", [{"crop_padding": -1}, {"flip_rate": 1.5}, {"cutout": -2}])
def test_augmentation_refuses_nonsense(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Augment(**({"crop_padding": 0, "flip_rate": 0.0, "cutout": 0} | bad))


def test_balanced_subsets_are_even_sorted_and_nested():
    label = torch.arange(100) % 4
    keep = balanced(label, 40, "num_train")
    assert label[keep].bincount().tolist() == [10] * 4
    assert torch.equal(keep, keep.sort().values)
    assert set(keep.tolist()) < set(balanced(label, 60, "num_train").tolist())
    with pytest.raises(ValueError, match="at most 100"):
        balanced(label, 101, "num_train")


def test_digits_are_the_real_scans():
    data = Digits(num_classes=10, image_size=12, mean=(0.3,), std=(0.3,), **ALL).load()
    assert (len(data.train), len(data.test)) == (1297, 500)
    assert data.train.image.shape[1:] == (1, 12, 12)
    assert data.train.label.bincount().min() >= 125
    assert torch.equal(data.train.index, torch.arange(1297))


def test_wrong_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="num_classes"):
        Digits(num_classes=9, image_size=12, mean=(0.3,), std=(0.3,), **ALL).load()


def test_mnist_through_torchvision(shared: Path, tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (shared / "MNIST" / "raw").glob("*.gz"):
        with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    options = ALL | {"num_train": 500, "num_test": 100}
    data = TorchvisionDataset(
        name="MNIST", root=str(tmp_path), download=False, num_classes=10, image_size=14,
        mean=(0.1307,), std=(0.3081,), **options,
    ).load()  # fmt: skip
    assert data.train.image.shape == (500, 1, 14, 14)
    assert data.train.label.bincount().tolist() == [50] * 10
    assert data.class_names[1] == "1 - one"


def test_absent_download_is_one_clear_line(tmp_path: Path):
    data = TorchvisionDataset(
        name="CIFAR10", root=str(tmp_path), download=False, num_classes=10, image_size=32,
        mean=(0.5,) * 3, std=(0.2,) * 3, **ALL,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"CIFAR10 is not in dataset.root"):
        data.load()


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen real images of each class and split; read from the archive once."""
    archive = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10-jpeg.tar.gz"
    if not archive.is_file():
        pytest.skip("no ../shared/data/cifar10-jpeg.tar.gz beside the repository")
    root = tmp_path_factory.mktemp("jpegs")
    counts: dict[str, int] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            folder = str(Path(member.name).parent)
            if member.isfile() and counts.get(folder, 0) < 15:
                counts[folder] = counts.get(folder, 0) + 1
                tar.extract(member, root, filter="data")
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
    assert torch.equal(data.train.image[0], decode(first, 32, "RGB"))
    stamps = [p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("*.pt")]
    again = folder(jpegs, tmp_path).load()
    assert torch.equal(again.train.image, data.train.image)
    assert stamps == [p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("*.pt")]


def test_imagefolder_splits_off_a_test_set_and_resizes(jpegs, tmp_path):
    data = folder(jpegs / "train", tmp_path, image_size=16).load()
    assert (len(data.train), len(data.test)) == (120, 30)
    assert data.test.label.bincount().tolist() == [3] * 10
    assert data.train.image.shape[1:] == (3, 16, 16)


def test_broken_images_are_named(jpegs, tmp_path, caplog):
    (jpegs / "train" / "cat" / "broken.jpg").write_bytes(b"no image")
    for _ in range(2):  # decoded, then from the cache
        with pytest.raises(ValueError, match=r"1 unreadable images .*cat/broken.jpg"):
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


def test_resize_keeps_constant_images():
    image = torch.full((2, 1, 8, 8), 77, dtype=torch.uint8)
    assert (resize(image, 12) == 77).all()


def test_each_class_needs_images(tmp_path):
    with pytest.raises(ValueError, match=r"at least 2 readable images, got b \(1\), c \(0\)"):
        folder(made(tmp_path / "r", a=3, b=1, c=0), tmp_path).load()
    data = folder(made(tmp_path / "s", a=2, b=2), tmp_path, test_fraction=0.9).load()
    assert data.train.label.tolist() == data.test.label.tolist() == [0, 1]


def test_test_classes_must_be_among_the_training_classes(tmp_path):
    made(tmp_path / "r" / "train", a=2, b=2)
    with pytest.raises(ValueError, match="got train alone"):
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
    assert (decode(packed.getvalue(), 4, "RGB") == 128).all()


def test_channels_must_fit(tmp_path):
    with pytest.raises(ValueError, match=r"3 values \(RGB\) or 1"):
        folder(tmp_path, tmp_path, mean=(0.5, 0.5), std=(0.2, 0.2))
    with pytest.raises(ValueError, match="one per channel"):
        Digits(num_classes=10, image_size=12, mean=(0.3,) * 3, std=(0.3,) * 3, **ALL).load()
    for mean, std in (([float("nan")], [1.0]), ([0.0], [float("nan")]), ([0.0], [0.0])):
        with pytest.raises(ValueError, match="finite"):
            Normalize(mean, std)
    assert hash(Normalize([0.5], [0.2])) == hash(Normalize((0.5,), (0.2,)))


@pytest.mark.parametrize(
    ("name", "file"),
    [("MNIST", "train-images-idx3-ubyte"), ("CIFAR10", "cifar-10-python.tar.gz"),
     ("SVHN", "train_32x32.mat")],
)  # fmt: skip
def test_no_network_says_what_to_put_where(name, file, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    channels = 1 if name == "MNIST" else 3
    data = TorchvisionDataset(
        name=name, root=str(tmp_path), download=True, num_classes=10, image_size=32,
        mean=(0.5,) * channels, std=(0.2,) * channels, **ALL,
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"could not download {name} .*{file}"):
        data.load()
