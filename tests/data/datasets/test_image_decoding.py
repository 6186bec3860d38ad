"""Files that are no images, too large or unreadable; memory that threads share."""

import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn.data.datasets import image_decoding as module
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.image_decoding import MAX_PIXELS, MemoryBudget
from unlearn.data.datasets.image_folder import ImageFolder


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
        "num_train": None, "num_test": None,
        "augment": Augment(crop_padding=0, flip_rate=0.0, cutout=0),
    }  # fmt: skip
    return ImageFolder(root=str(root), **(options | more))


def in_time(call, free=()):
    """Return what a call returns or raises; it must not wait for another process."""
    found = []

    def run():
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    for fifo in free:
        os.close(os.open(fifo, os.O_RDWR))  # frees a thread that waits
    assert found
    return found[0]


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, monkeypatch):
    root = made(tmp_path / "r", a=3, b=3)
    os.mkfifo(root / "a" / "fifo.png")
    (root / "a" / "loop.png").symlink_to(root / "a" / "loop.png")
    monkeypatch.chdir(root / "a")  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        error = in_time(folder(root, tmp_path).load, [root / "a" / "fifo.png"])
        data = in_time(folder(root, tmp_path, unreadable="skip").load)
    assert len(data.train) + len(data.test) == 6
    assert isinstance(error, ValueError) and "\n" not in str(error)
    assert "3 unreadable images" in str(error)
    for part in (
        "a/fifo.png (a FIFO, not a file)",
        "a/loop.png (Too many levels of symbolic links)",
        "a/socket.png (a socket, not a file)",
    ):
        assert part in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(tmp_path):
    root = made(tmp_path / "r", a=3, b=3)
    (root / "a" / "0.png").chmod(0)
    with pytest.raises(ValueError, match=r"a/0\.png \(Permission denied\)"):
        folder(root, tmp_path).load()


def test_an_image_with_too_many_pixels_is_named(tmp_path, caplog):
    root = made(tmp_path / "r", a=3, b=3)
    Image.new("1", (14_000, 13_000)).save(root / "a" / "bomb.png")
    assert (root / "a" / "bomb.png").stat().st_size < 100_000
    before = Image.MAX_IMAGE_PIXELS
    message = r"a/bomb\.png \(more than dataset\.max_pixels=178956970 pixels\)"
    with pytest.raises(ValueError, match=message):
        folder(root, tmp_path).load()
    data = folder(root, tmp_path, unreadable="skip").load()
    assert len(data.train) + len(data.test) == 6
    assert Image.MAX_IMAGE_PIXELS == before and MAX_PIXELS == 2 * (before or 0)


def test_the_most_pixels_are_an_option(tmp_path):
    root = made(tmp_path / "r", a=3, b=3)  # 9 x 7 pixels
    Image.new("RGB", (8, 8)).save(root / "a" / "larger.png")
    with pytest.raises(ValueError, match=r"1 unreadable image .*a/larger\.png \(more than .*=63"):
        folder(root, tmp_path, max_pixels=63).load()
    data = folder(root, tmp_path, max_pixels=64).load()
    assert len(data.train) + len(data.test) == 7
    with pytest.raises(ValueError, match=r"none of 7 images is readable, such as a/0\.png \(more"):
        folder(root, tmp_path, max_pixels=62).load()
    with pytest.raises(ValueError, match=r"dataset\.max_pixels must be at least 1, got 0"):
        folder(root, tmp_path, max_pixels=0)


def test_a_huge_sparse_image_is_neither_hashed_nor_read(tmp_path):
    root = made(tmp_path / "r", a=3, b=3)
    os.truncate(root / "a" / "0.png", 1 << 40)
    error = in_time(lambda: folder(root, tmp_path).load())
    assert "a/0.png (too large for dataset.max_pixels=178956970)" in str(error)


def test_the_pixels_do_not_depend_on_the_memory(tmp_path, monkeypatch):
    root, noise = made(tmp_path / "r", a=20, b=20), np.random.default_rng(0)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        pixels = noise.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    many = folder(root, tmp_path).load()
    monkeypatch.setattr(module, "MEMORY", 1)  # one image at a time
    alone = folder(root, tmp_path, cache_dir=str(tmp_path / "other")).load()
    assert torch.equal(many.train.image, alone.train.image)
    assert torch.equal(many.test.image, alone.test.image)


def test_threads_stay_within_their_memory():
    budget, seen, failed = MemoryBudget(10), [], []

    def work(size):
        for _ in range(200):
            with budget.reserve(size):
                seen.append(budget.used)
        try:
            with budget.reserve(size):
                raise KeyError
        except KeyError:
            failed.append(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in (3, 4, 6, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(failed) == [3, 4, 6, 25] and budget.used == 0
    assert len(seen) == 800 and max(seen) == 10 and {3, 4, 6} <= set(seen)
