"""Normalisation, augmentation, the embedded sets and the real files of MNIST."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.base import resize_images, select_balanced
from unlearn.data.datasets.digits import Digits
from unlearn.data.datasets.normalization import Normalize
from unlearn.data.datasets.synthetic import Synthetic
from unlearn.data.datasets.torchvision_sets import TorchvisionDataset

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
    keep = select_balanced(label, 40, "num_train")
    assert label[keep].bincount().tolist() == [10] * 4
    assert torch.equal(keep, keep.sort().values)
    assert set(keep.tolist()) < set(select_balanced(label, 60, "num_train").tolist())
    with pytest.raises(ValueError, match="at most 100"):
        select_balanced(label, 101, "num_train")


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


def test_resize_keeps_constant_images():
    image = torch.full((2, 1, 8, 8), 77, dtype=torch.uint8)
    assert (resize_images(image, 12) == 77).all()


def test_synthetic_is_seeded_and_learnable():
    def load(seed):
        return Synthetic(
            num_classes=3, image_size=8, mean=(0.5,), std=(0.25,), seed=seed, **ALL
        ).load()

    data = load(0)
    assert (len(data.train), len(data.test)) == (200, 60)
    assert torch.equal(data.train.image, load(0).train.image)
    assert not torch.equal(data.train.image, load(1).train.image)
    means = torch.stack([data.train.image[data.train.label == c].float().mean(0) for c in range(3)])
    distance = (data.test.image[:, None].float() - means).square().flatten(2).sum(2)
    assert (distance.argmin(1) == data.test.label).all()  # the nearest class mean solves it


@pytest.mark.parametrize("cut", [0, 3, 10, 5000])
@pytest.mark.parametrize("download", [False, True])
def test_torn_files_are_called_so(cut, download, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)  # nothing is to be fetched
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    header = (2051).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in (60000, 28, 28))
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes((header + bytes(9000))[:cut])
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(b"")
    data = TorchvisionDataset(
        name="MNIST", root=str(tmp_path), download=download, num_classes=10, image_size=28,
        mean=(0.5,), std=(0.2,), **ALL,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"broken file of MNIST in .*raw.*delete that folder"):
        data.load()


def test_heavy_libraries_wait_until_data_are_loaded():
    names = "augmentation base digits image_files image_folder image_table huggingface normalization synthetic torchvision_sets torchvision_files".split()
    code = (
        f"import sys; {'; '.join(f'import unlearn.data.datasets.{n}' for n in names)}; "
        "print(sorted({'torchvision', 'sklearn', 'PIL', 'rich', 'datasets'} & set(sys.modules)))"
    )
    repository = Path(__file__).resolve().parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_channels_must_fit():
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


def test_resized_crops_stay_within_the_image_and_follow_the_generator():
    ramp = torch.arange(32, dtype=torch.uint8).expand(3, 32, 32) * 7
    image = torch.stack([ramp, ramp.transpose(1, 2)]).repeat(20, 1, 1, 1)
    crop = Augment(crop_padding=0, flip_rate=0.0, cutout=0, resized_crop=0.1)
    out = crop(image, generator())
    assert out.shape == image.shape and out.dtype == torch.uint8
    assert torch.equal(out, crop(image, generator()))
    assert not torch.equal(out, crop(image, generator(1)))
    across, down = out[::2].int(), out[1::2].int()
    assert (across.diff(dim=3) >= 0).all() and (across.diff(dim=2).abs() <= 1).all()
    assert (down.diff(dim=2) >= 0).all() and (down.diff(dim=3).abs() <= 1).all()
    widths = across[:, 0, 0, -1] - across[:, 0, 0, 0]
    assert widths.max() <= 7 * 31 and widths.min() < 7 * 20  # parts of several sizes
    flipped = Augment(crop_padding=0, flip_rate=1.0, cutout=0, resized_crop=0.1)(image, generator())
    assert (flipped[::2].int().diff(dim=3) <= 0).all()
    whole = Augment(crop_padding=0, flip_rate=0.0, cutout=0, resized_crop=1.0)
    assert whole(image, generator()) is image


def test_colours_change_within_their_range():
    image = torch.full((64, 3, 4, 4), 100, dtype=torch.uint8)
    out = Augment(crop_padding=0, flip_rate=0.0, cutout=0, color_jitter=0.4)(image, generator())
    grey = out.float().mean((1, 2, 3))
    assert 59 <= grey.min() < 90 and 110 < grey.max() <= 141
    assert (out.float().amax((1, 2, 3)) - out.float().amin((1, 2, 3))).max() <= 1  # grey stays grey
    one = Augment(crop_padding=0, flip_rate=0.0, cutout=0, color_jitter=0.4)(
        image[:, :1], generator()
    )
    assert one.shape == (64, 1, 4, 4)


@pytest.mark.parametrize(
    "wrong",
    [{"resized_crop": 0.0}, {"resized_crop": 0.5, "crop_padding": 1}, {"color_jitter": 1.0}],
)
def test_augmentation_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="must be in"):
        Augment(**({"crop_padding": 0, "flip_rate": 0.0, "cutout": 0} | wrong))
