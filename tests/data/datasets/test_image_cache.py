"""The cache of decoded images: hits, broken files, two processes."""

import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from unlearn.data.datasets.image_cache import load_or_make


def test_a_broken_cache_file_is_rebuilt(tmp_path, caplog):
    assert load_or_make(tmp_path, "k", lambda: {"a": 1}) == {"a": 1}
    assert load_or_make(tmp_path, "k", lambda: {"a": 2}) == {"a": 1}
    (tmp_path / "k.pt").write_bytes(b"torn")
    assert load_or_make(tmp_path, "k", lambda: {"a": 3}) == {"a": 3}
    assert "broken cache file" in caplog.text


def test_a_flipped_bit_is_found_and_the_images_are_made_again(tmp_path, caplog):
    value = {"image": torch.arange(4000, dtype=torch.uint8).view(10, 400), "files": ["a", "b"]}
    load_or_make(tmp_path, "k", lambda: value)
    path, draw = tmp_path / "k.pt", random.Random(0)
    content = path.read_bytes()
    for _ in range(12):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        caplog.clear()
        found = load_or_make(tmp_path, "k", lambda: value)
        assert torch.equal(found["image"], value["image"]) and found["files"] == value["files"]
        (line,) = caplog.messages
        assert str(path) in line and line.endswith("set aside as k.pt.broken")
        assert (tmp_path / "k.pt.broken").read_bytes() == changed
        assert path.read_bytes() == content
    caplog.clear()
    load_or_make(tmp_path, "k", lambda: {"made": "again"})
    assert not caplog.messages


def test_the_images_of_another_key_are_refused(tmp_path, caplog):
    load_or_make(tmp_path, "one", lambda: {"a": 1})
    shutil.copyfile(tmp_path / "one.pt", tmp_path / "other.pt")
    assert load_or_make(tmp_path, "other", lambda: {"a": 2}) == {"a": 2}
    assert "it was written under another key" in caplog.text


def test_a_cache_of_an_earlier_version_counts(tmp_path, caplog):
    torch.save({"a": torch.ones(9)}, tmp_path / "k.pt")
    assert torch.equal(load_or_make(tmp_path, "k", lambda: {})["a"], torch.ones(9))
    content = (tmp_path / "k.pt").read_bytes()
    place = content.index(torch.ones(9).numpy().tobytes())
    (tmp_path / "k.pt").write_bytes(content[:place] + b"\1" + content[place + 1 :])
    assert load_or_make(tmp_path, "k", lambda: {"a": 1}) == {"a": 1}
    assert "CRC-32" in caplog.text


def _make_slowly(root: str) -> int:
    import os
    import time

    def make():
        time.sleep(0.3)
        with open(f"{root}/made", "a") as file:
            file.write("x")
        return {"pid": os.getpid()}

    return load_or_make(Path(root), "k", make)["pid"]


def test_two_processes_make_it_once(tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        pids = list(pool.map(_make_slowly, [str(tmp_path)] * 2))
    assert pids[0] == pids[1]
    assert (tmp_path / "made").read_text() == "x"
