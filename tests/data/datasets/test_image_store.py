"""The stores of decoded images: what is decoded, shared, verified and made again."""

import io
import os
import pickle
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn.core import stored_images
from unlearn.core.stored_images import StoredImages, hash_images
from unlearn.core.types import ImageSet, join_sets
from unlearn.data.corruption.poison import Poison
from unlearn.data.datasets import encoded_store, image_files, image_store
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.base import Dataset
from unlearn.data.datasets.image_decoding import ImageDecoder
from unlearn.data.datasets.image_folder import ImageFolder
from unlearn.training.loader import ResidentLoader

KINDS = ("pixels", "encoded")
CROP = Augment(crop_padding=2, flip_rate=0.5, cutout=0)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images in two folders: JPEGs that torchvision decodes as PIL does, and all others."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # restored at the end
    draw = np.random.default_rng(0)
    root = tmp_path / "photos"
    for number in range(12):
        path = root / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = 16 if number < 6 else 21
        image = Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8))
        if number == 7:
            exif = image.getexif()
            exif[0x0112] = 6  # to be rotated
            image.save(path, exif=exif)
            continue
        image = image.convert({8: "L", 9: "CMYK"}.get(number, "RGB"))
        image.save(path, "PNG" if number == 10 else "JPEG", progressive=number == 4)
    return root


def load(root: Path, home: Path, **more: Any) -> Dataset:
    options: dict[str, Any] = {
        "num_classes": None, "image_size": 16, "mean": (0.5,) * 3, "std": (0.2,) * 3,
        "test_fraction": 0.2, "unreadable": "fail", "cache_dir": str(home / "cache"),
        "num_train": None, "num_test": None, "augment": CROP,
    }  # fmt: skip
    return ImageFolder(root=str(root), **(options | more)).load()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from now on, in any order."""
    names: list[str] = []

    def count(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, path: names.append(path.name) or call(self, path)

    for name in ("decode_file", "read_file"):
        monkeypatch.setattr(ImageDecoder, name, count(getattr(ImageDecoder, name)))
    return names


def stored(data: ImageSet) -> StoredImages:
    assert isinstance(data.image, StoredImages)
    return data.image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_stored_images_are_those_in_memory_to_the_last_bit(photos, tmp_path, kind, channels):
    colours = {"mean": (0.5,) * channels, "std": (0.2,) * channels}
    plain = load(photos, tmp_path, **colours)
    own = load(photos, tmp_path, store=kind, **colours)
    assert not isinstance(plain.train.image, StoredImages)
    assert stored(own.train).source is stored(own.test).source
    for one, other in ((plain.train, own.train), (plain.test, own.test)):
        assert torch.equal(one.image, other.image[:]) and torch.equal(one.label, other.label)
        assert torch.equal(one.image, stored(other).load()) and len(one) == len(other.image)
        assert one.image.shape == other.image.shape and one.image.numel() == other.image.numel()
        assert torch.equal(one.image[3:5], other.image[3:5]) or len(one) < 5
        assert torch.equal(one.image[0], other.image[0])
        assert hash_images(one.image) == hash_images(other.image)
        batches = zip(one.batches(3), other.batches(3), strict=True)
        assert all(
            torch.equal(a.image, b.image) and torch.equal(a.index, b.index) for a, b in batches
        )
        loaders = [ResidentLoader(d, batch_size=3, augment=CROP, seed=1) for d in (one, other)]
        for a, b in zip(*loaders, strict=True):
            assert torch.equal(a.image, b.image) and b.image.is_contiguous()
            assert torch.equal(a.label, b.label) and torch.equal(a.index, b.index)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_lists_of_rows(photos, tmp_path, kind):
    own = load(photos, tmp_path, store=kind)
    forget, retain = own.train.rows(torch.tensor([1, 4])), own.train.rows(torch.tensor([0, 2, 3]))
    both = join_sets(forget, retain)
    held = own.hold_out(0.5)
    assert held.validation is not None
    for part in (forget, retain, both, held.train, held.validation, own.train.to("cpu")):
        assert stored(part).source is stored(own.train).source
    assert torch.equal(both.image[:], own.train.image[:5])
    whole = own.add_test_images(torch.tensor([1]))
    assert torch.equal(whole.train.image[len(own.train)], own.test.image[1])
    sent = pickle.loads(pickle.dumps(own.train.image))
    assert torch.equal(sent[:], own.train.image[:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_trigger_of_a_large_set_is_found_without_reading_it(
    photos, tmp_path, kind, monkeypatch
):
    options = {"target_class": 0, "trigger_size": 2, "corner": "top_left", "value": None}
    poison = Poison(**options, exclude_target_class=False)
    found = [poison(load(photos, tmp_path).train, count=2, seed=0)[1].trigger]
    own = load(photos, tmp_path, store=kind)
    monkeypatch.setattr(type(stored(own.train).source), "read", None)
    monkeypatch.setattr(stored_images, "RESIDENT_BYTES", 0)
    assert poison(own.train, count=2, seed=0)[1].trigger == found[0]
    assert len(hash_images(own.train.image)) == 32


@pytest.mark.parametrize("kind", ("auto", *KINDS))
def test_only_what_is_used_is_decoded_and_each_image_once(photos, tmp_path, kind, decoded):
    few = load(photos, tmp_path, num_train=4, num_test=2, store=kind)
    used = (*(few.files or ()), *(few.split_off or ()))
    assert sorted(decoded) == sorted(Path(f).name for f in used)
    more = load(photos, tmp_path, store=kind)
    again = load(photos, tmp_path, num_train=4, num_test=2, store=kind)
    assert len(decoded) == len(set(decoded)) == 12
    assert torch.equal(few.train.image[:], again.train.image[:])
    assert torch.equal(more.train.image[:], load(photos, tmp_path / "new").train.image[:])


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_decoded_before_a_kill_is_kept(photos, tmp_path, kind, decoded, monkeypatch):
    monkeypatch.setattr(image_store, "BLOCK_BYTES", 3 * 16 * 16 * 3)  # three images

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    write, left = image_store.ImageStore._write_image, [7]

    def write_some(*arguments: Any) -> None:
        left[0] -= 1
        return write(*arguments) if left[0] >= 0 else die()

    monkeypatch.setattr(image_store.ImageStore, "_write_image", write_some)
    with pytest.raises(KeyboardInterrupt):
        load(photos, tmp_path, store=kind)
    decoded.clear()
    left[0] = 100
    own = load(photos, tmp_path, store=kind)
    assert len(decoded) == 6  # two blocks of three count
    assert torch.equal(own.train.image[:], load(photos, tmp_path / "new").train.image[:])


@pytest.mark.parametrize("kind", ("auto", *KINDS))
def test_a_flipped_bit_is_found_and_the_images_are_made_again(photos, tmp_path, kind, caplog):
    right = load(photos, tmp_path, store=kind).train.image[:]
    name = "pixels" if kind == "auto" else kind
    draw = random.Random(0)
    for pattern in (f"*.{name}", f"*.{name}.index"):
        (path,) = (tmp_path / "cache").glob(pattern)
        for _ in range(6):
            content = bytearray(path.read_bytes())
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(content)
            caplog.clear()
            assert torch.equal(load(photos, tmp_path, store=kind).train.image[:], right)
            (line,) = caplog.messages
            assert line.startswith("decoding again: ") and str(path) in line
            caplog.clear()
            load(photos, tmp_path, store=kind)
            assert not caplog.messages


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_file_is_verified_once_for_each_state(photos, tmp_path, kind, monkeypatch):
    seen: list[int] = []
    find = image_store.ImageStore._find_broken

    def count(self: Any, rows: Any) -> Any:
        seen.append(len(rows))
        return find(self, rows)

    monkeypatch.setattr(image_store.ImageStore, "_find_broken", count)
    load(photos, tmp_path, store=kind)
    seen.clear()
    load(photos, tmp_path, store=kind)
    assert seen == []
    (path,) = (tmp_path / "cache").glob(f"*.{kind}")
    os.utime(path, (1, 1))
    load(photos, tmp_path, store=kind)
    assert seen == [12]
    shutil.copyfile(path, tmp_path / "copy")
    os.replace(tmp_path / "copy", path)
    os.utime(path, (1, 1))
    load(photos, tmp_path, store=kind)
    assert seen == [12, 12]
    path.unlink()
    assert len(load(photos, tmp_path, store=kind).train.image[:]) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_an_added_changed_or_removed_image_is_noticed(photos, tmp_path, kind):
    def show() -> torch.Tensor:
        data = load(photos, tmp_path, store=kind)
        return torch.cat([data.train.image[:], data.test.image[:]])

    before = show()
    Image.new("RGB", (16, 16), (9, 9, 9)).save(photos / "a" / "00.jpg")
    assert ((show() == 9).flatten(1).all(1)).sum() == 1 and len(before) == 12
    Image.new("RGB", (16, 16), (9, 9, 9)).save(photos / "b" / "99.png")
    assert ((show() == 9).flatten(1).all(1)).sum() == 2
    (photos / "a" / "00.jpg").unlink()
    assert ((show() == 9).flatten(1).all(1)).sum() == 1


def test_the_index_of_other_images_is_refused(photos, tmp_path, caplog):
    right = load(photos, tmp_path).train.image
    (one,) = (tmp_path / "cache").glob("*.index")
    other = load(photos, tmp_path, image_size=20).train.image
    (two,) = set((tmp_path / "cache").glob("*.index")) - {one}
    shutil.copyfile(one, two)
    assert torch.equal(load(photos, tmp_path, image_size=20).train.image, other)
    assert "it was written under another key" in caplog.text
    assert torch.equal(load(photos, tmp_path).train.image, right)


def test_images_that_cannot_be_stored_are_held_in_memory(photos, tmp_path, caplog, monkeypatch):
    right = load(photos, tmp_path)
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "cache").write_text("in the way")
    for limit in (image_files.RESIDENT_BYTES, 0):
        monkeypatch.setattr(image_files, "RESIDENT_BYTES", limit)
        caplog.clear()
        own = load(photos, tmp_path / "away")
        (line,) = caplog.messages
        assert "are not cached" in line and str(tmp_path / "away" / "cache") in line
        assert torch.equal(own.train.image[:], right.train.image)
        assert isinstance(own.train.image, StoredImages) == (limit == 0)
    source = stored(own.train).source
    (path,) = (tmp_path / "cache").glob("*.pixels.index")
    index = torch.load(path, weights_only=True)
    rows = stored(own.train).rows
    assert torch.equal(source.get_digests(rows), index["pixels"][rows])
    assert torch.equal(source.get_maxima(rows), index["maxima"][rows])


def test_large_sets_are_stored_and_what_does_not_fit_is_encoded(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "RESIDENT_BYTES", 0)
    assert stored(load(photos, tmp_path).train).source.kind == "pixels"
    monkeypatch.setattr(image_files, "fits_machine", lambda *_: False)
    assert stored(load(photos, tmp_path).train).source.kind == "pixels"  # it is there
    assert stored(load(photos, tmp_path, image_size=20).train).source.kind == "encoded"
    with pytest.raises(ValueError, match=r"dataset\.store must be one of auto, pixels, encoded"):
        load(photos, tmp_path, store="raw")


@pytest.mark.parametrize("kind", KINDS)
def test_unreadable_images_are_named_or_skipped(photos, tmp_path, kind, caplog):
    (photos / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"1 unreadable image .*a/broken\.jpg"):
            load(photos, tmp_path, store=kind)
    own = load(photos, tmp_path, store=kind, unreadable="skip")
    assert len(own.train) + len(own.test) == 12 and "a/broken.jpg" in caplog.text


def test_most_jpegs_are_decoded_by_torchvision(photos, tmp_path):
    own = load(photos, tmp_path, store="encoded")
    fast = stored(own.train).source.index.fast
    names = [Path(p).name for p in stored(own.train).source.paths]
    assert {n for n, f in zip(names, fast.tolist(), strict=True) if f} >= {"00.jpg", "01.jpg"}
    assert not fast[[names.index(n) for n in ("07.jpg", "10.jpg")]].any()
    content = io.BytesIO()
    Image.new("L", (16, 16)).save(content, "PNG")
    assert not encoded_store._decodes_alike(content.getvalue(), torch.zeros(3, 16, 16))


def _load_counted(arguments: tuple[str, str]) -> bytes:
    root, home = map(Path, arguments)
    decode = ImageDecoder.decode_file

    def count(self: ImageDecoder, path: Path) -> Any:
        with (home / "decoded").open("a") as file:
            file.write("x")
        return decode(self, path)

    ImageDecoder.decode_file = count
    return hash_images(load(root, home, store="pixels").train.image)


def test_two_processes_decode_each_image_once(photos, tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        one, other = pool.map(_load_counted, [(str(photos), str(tmp_path))] * 2)
    assert one == other == hash_images(load(photos, tmp_path / "new").train.image)
    assert (tmp_path / "decoded").read_text() == 12 * "x"
