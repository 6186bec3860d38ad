"""Cached models with flipped bits, of other keys or networks, and files that are no models."""

import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unlearn.storage.checkpoint_cache import CheckpointCache, TrainedModel
from unlearn.storage.state_dicts import load_state, save_state
from unlearn.storage.user_checkpoint import match_checkpoint

IDENTITY = {"dataset": {"name": "digits"}, "seeds": {"train": 0}, "corrupted": 0.05}


def trained(value: float = 1.0) -> TrainedModel:
    return TrainedModel({"w": torch.full((3,), value)}, {"loss": torch.zeros(5)}, {"seconds": 2.0})


def fail(folder: Path) -> TrainedModel:
    raise AssertionError("trained again")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def flip_bit(path: Path, bit: int) -> bytes:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("together", [False, True])
def test_a_flipped_bit_is_named_set_aside_and_trained_again(
    tmp_path: Path, together: bool, caplog: pytest.LogCaptureFixture
):
    cache, draw = CheckpointCache(tmp_path), random.Random(3)
    cache.get_or_train(IDENTITY, lambda _: trained())
    path = cache.model_folder(IDENTITY) / "model.pt"
    content = path.read_bytes()
    for _ in range(12):
        changed = flip_bit(path, draw.randrange(8 * len(content)))
        caplog.clear()
        if together:
            assert cache.train_missing([IDENTITY], lambda folders: [(0, trained())]) == [0]
        else:
            assert not cache.get_or_train(IDENTITY, lambda _: trained())[1]
        (line,) = caplog.messages
        assert line.startswith(f"training again: {path} is broken (")
        assert line.endswith("set aside as model.pt.broken")
        assert path.with_name("model.pt.broken").read_bytes() == changed
        assert path.read_bytes()[-64:] == content[-64:]  # the same model
        assert cache.get_or_train(IDENTITY, fail)[1]


def test_another_models_file_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    cache, other = CheckpointCache(tmp_path), IDENTITY | {"corrupted": 0.1}
    for who, value in ((IDENTITY, 1.0), (other, 2.0)):
        cache.get_or_train(who, lambda _, value=value: trained(value))
    path = cache.model_folder(IDENTITY) / "model.pt"
    shutil.copyfile(cache.model_folder(other) / "model.pt", path)
    model, cached = cache.get_or_train(IDENTITY, lambda _: trained(1.0))
    assert not cached and model.state["w"][0] == 1
    assert "it was written under another key" in caplog.text
    assert cache.get_or_train(other, fail)[1]


def test_files_of_earlier_versions_count_if_they_are_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    cache = CheckpointCache(tmp_path)
    cache.get_or_train(IDENTITY, lambda _: trained())
    path = cache.model_folder(IDENTITY) / "model.pt"
    torch.save(vars(trained(3.0)), path)
    content = path.read_bytes()
    assert cache.get_or_train(IDENTITY, fail)[0].state["w"][0] == 3
    assert path.read_bytes() == content and not caplog.messages
    flip_bit(path, 8 * content.index(torch.full((3,), 3.0).numpy().tobytes()))
    assert not cache.get_or_train(IDENTITY, lambda _: trained())[1]
    assert "does not match its CRC-32" in caplog.text


def test_a_state_of_another_network_is_trained_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    cache = CheckpointCache(tmp_path)
    model = TrainedModel(dict(network().state_dict()), {}, {})
    cache.get_or_train(IDENTITY, lambda _: model, network=network())
    cache.get_or_train(IDENTITY, fail, network=network())
    wider = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    before = {k: v.clone() for k, v in wider.state_dict().items()}
    new = TrainedModel(dict(wider.state_dict()), {}, {})
    assert not cache.get_or_train(IDENTITY, lambda _: new, network=wider)[1]
    assert same(before, dict(wider.state_dict()))
    (line,) = caplog.messages
    assert "0.bias is (2,) in the file, (4,) in the network" in line
    fewer = nn.Sequential(nn.Conv2d(1, 4, 3))
    model = TrainedModel(dict(fewer.state_dict()), {}, {})
    assert not cache.get_or_train(IDENTITY, lambda _: model, network=fewer)[1]
    assert "1.bias is (4,) in the file, absent in the network" in caplog.text


def test_a_sparse_or_strange_model_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    cache = CheckpointCache(tmp_path)
    path = cache.model_folder(IDENTITY) / "model.pt"
    cache.get_or_train(IDENTITY, lambda _: trained())
    os.truncate(path, 1 << 40)
    assert not cache.get_or_train(IDENTITY, lambda _: trained())[1]
    assert "more than the memory of this machine" in caplog.text
    path.unlink()
    os.mkfifo(path)
    assert not cache.get_or_train(IDENTITY, lambda _: trained())[1]
    assert "a FIFO, not a file" in caplog.text
    assert cache.get_or_train(IDENTITY, fail)[1]


@pytest.mark.parametrize("size", [1 << 40, 1 << 30])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_sparse_checkpoint_of_a_user_is_one_line(tmp_path: Path, size: int, suffix: str):
    path = tmp_path / f"mine{suffix}"
    for content in (b"", b"state"):
        path.write_bytes(content)
        os.truncate(path, size)
        with pytest.raises(ValueError, match=r"^checkpoint \S+mine") as caught:
            match_checkpoint(path, network(), "the network")
        assert "\n" not in str(caught.value)
    save_state(path, network().state_dict())
    os.truncate(path, size)
    with pytest.raises(ValueError, match=r"^checkpoint \S+mine"):
        match_checkpoint(path, network(), "the network")


def test_a_healed_model_with_a_flipped_bit_is_refused(tmp_path: Path):
    path = tmp_path / "model.pt"
    save_state(path, network().state_dict())
    draw, size = random.Random(4), path.stat().st_size
    for _ in range(12):
        save_state(path, network().state_dict())
        flip_bit(path, draw.randrange(8 * (size - 121)))  # the seal's own bits: not a user's file
        with pytest.raises(ValueError, match=r"model\.pt (is broken|cannot be read)"):
            load_state(path)
