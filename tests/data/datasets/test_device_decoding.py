"""Encoded images decoded on the device, and large images augmented there."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torch import Tensor

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.stored_images import StoredImages, read_batches
from unlearn.core.types import ImageSet
from unlearn.data.corruption.poison import SquareTrigger, StampedView
from unlearn.data.datasets import augmentation
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.encoded_store import (
    EncodedStore,
    find_device_decoder,
    find_fast_decoder,
)
from unlearn.data.datasets.image_folder import ImageFolder
from unlearn.training.loader import ResidentLoader

NOTHING = Augment(crop_padding=0, flip_rate=0.0, cutout=0)
LARGE = ("none", "resized_crop", "resized_crop_color")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight smooth images of 32 px in two folders; the last of each is no JPEG."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # restored at the end
    ramp = np.linspace(0, 255, 32)
    for number in range(8):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        planes = [np.add.outer(ramp * (number / 8), ramp) / 2, np.tile(ramp, (32, 1))]
        image = np.stack([*planes, np.full((32, 32), 30.0 * number)], axis=2)
        kind = "PNG" if number > 5 else "JPEG"
        Image.fromarray(image.astype(np.uint8)).save(path, kind)
    return tmp_path / "photos"


def load(root: Path, **more: Any) -> StoredImages:
    folder = ImageFolder(
        root=str(root), num_classes=None, image_size=32, mean=(0.5,) * 3, std=(0.2,) * 3,
        test_fraction=0.3, unreadable="fail", cache_dir=str(root.parent / "cache"), num_train=None,
        num_test=None, augment=NOTHING, store="encoded", **more,
    )  # fmt: skip
    images = folder.load().train.image
    assert isinstance(images, StoredImages)
    return StoredImages(images.source, torch.arange(8))


def source(images: StoredImages) -> EncodedStore:
    assert isinstance(images.source, EncodedStore)
    return images.source


def decode_like_a_device(contents: list[Tensor], device: torch.device) -> list[Tensor]:
    decode = find_fast_decoder()
    assert decode is not None and device.type == "cpu"
    return [decode(content) for content in contents]


def test_images_of_the_device_take_their_places(photos: Path):
    images, cpu = load(photos), torch.device("cpu")
    rows = torch.tensor([7, 2, 3, 0, 5])
    assert source(images).index.fast[rows].tolist() == [False, True, False, True, True]
    found = source(images).decode_on(rows, cpu, decode_like_a_device)
    assert torch.equal(found, images.read(rows))


def test_without_a_gpu_the_cpu_decodes(photos: Path):
    plain, asked = load(photos), load(photos, decode="device")
    assert not source(plain).on_device and source(asked).on_device
    parts, cpu = [torch.tensor([1, 7]), torch.tensor([4])], torch.device("cpu")
    for one, other in zip(
        read_batches(plain, parts, cpu),  # type: ignore[arg-type]
        read_batches(asked, parts, cpu),  # type: ignore[arg-type]
        strict=True,
    ):
        assert torch.equal(one, other)


def test_what_the_device_cannot_decode_is_decoded_by_the_cpu(photos: Path, caplog):
    images, cpu = load(photos, decode="device"), torch.device("cpu")

    def refuse(contents: list[Tensor], device: torch.device) -> list[Tensor]:
        raise RuntimeError("nvjpegDecode: not supported\nat line 1")

    with caplog.at_level(logging.WARNING):
        found = source(images).decode_on(torch.arange(8), cpu, refuse)
    assert torch.equal(found, images.read(torch.arange(8)))
    assert caplog.messages == ["images are decoded on the CPU: nvjpegDecode: not supported"]
    assert not source(images).on_device  # said once


@pytest.mark.gpu
def test_a_gpu_decodes_to_almost_the_same_pixels(photos: Path):
    if find_device_decoder() is None:
        pytest.skip("this torchvision has no nvJPEG")
    gpu = torch.device("cuda")
    images, exact = load(photos, decode="device"), load(photos)
    (found,) = read_batches(images, [torch.arange(8)], gpu)  # type: ignore[arg-type]
    assert found.device.type == "cuda" and source(images).on_device
    gap = (found.cpu().int() - exact.read(torch.arange(8)).int()).abs()
    assert gap[[3, 7]].max() == 0 and gap.float().mean() < 2 and gap.max() < 32


def compose(*words: str) -> dict[str, Any]:
    with enable_composition([config_dir()]):
        return to_plain_config(compose_config("unlearn", list(words), [config_dir()]))


def test_options_that_are_not_used_leave_ids_as_they_were(photos: Path):
    words = ["dataset=imagefolder", f"dataset.root={photos}"]
    now = compose(*words)
    before = {**now, "dataset": {k: v for k, v in now["dataset"].items() if k != "decode"}}
    assert "augment" not in now and compute_run_id(now) == compute_run_id(before)
    assert compute_run_id(compose(*words, "dataset.decode=device")) != compute_run_id(now)
    assert compute_run_id(compose(*words, "augment=resized_crop")) != compute_run_id(now)


@pytest.mark.parametrize("name", LARGE)
def test_each_augmentation_for_large_images_is_an_option(name: str):
    node = compose("dataset=synthetic", f"augment={name}", "dataset.augment.flip_rate=1.0")
    made = instantiate(node["dataset"]["augment"])
    assert isinstance(made, Augment) and made.flip_rate == 1 and made.crop_padding == 0
    assert (made.resized_crop < 1, made.color_jitter > 0) == (name != "none", name == LARGE[2])


def test_crops_of_parts_of_a_batch_are_those_of_the_batch(monkeypatch: pytest.MonkeyPatch):
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8, generator=draw)
    augment = replace(NOTHING, crop_padding=3, flip_rate=0.5)
    whole = augment(image, torch.Generator().manual_seed(1))
    monkeypatch.setattr(augmentation, "GATHERED", 3 * 256)
    assert torch.equal(augment(image, torch.Generator().manual_seed(1)), whole)


def test_large_images_follow_seed_and_epoch_and_the_trigger_stays():
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(0, 200, (12, 3, 16, 16), dtype=torch.uint8, generator=draw)
    trigger = SquareTrigger(size=3, corner="bottom_right", value=9.0)
    marked = torch.arange(12) < 6
    view = StampedView(lambda image, index: image.float() / 255, trigger, marked)
    data = ImageSet(image, torch.zeros(12).long(), torch.arange(12), 1, view)
    augment = replace(NOTHING, flip_rate=0.5, resized_crop=0.1, color_jitter=0.4)

    def collect(seed: int, epoch: int) -> Tensor:
        loader = ResidentLoader(data, batch_size=5, augment=augment, seed=seed)
        loader.set_epoch(epoch)
        batches = list(loader)
        for batch in batches:
            corner = trigger.select_corner(batch.image)
            assert torch.equal((corner == 9).all(dim=(1, 2, 3)), marked[batch.index])
            assert (batch.image == 9).sum() == 27 * int(marked[batch.index].sum())
        order = torch.cat([batch.index for batch in batches]).argsort()
        return torch.cat([batch.image for batch in batches])[order]

    first = collect(1, 0)
    assert torch.equal(first, collect(1, 0))
    assert not torch.equal(first, collect(1, 1)) and not torch.equal(first, collect(2, 0))
