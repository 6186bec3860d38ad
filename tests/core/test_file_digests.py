"""Hashes of files are kept between runs, and every change of a file is noticed."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from unlearn.core import file_digests
from unlearn.core.file_digests import FileDigests, hash_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for number in range(4):
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 10)
        os.utime(path, (time.time() - 100,) * 2)
    return folder


def digest(root: Path, cache: Path | None, *outside: Path) -> str:
    hash_folder.cache_clear()
    return hash_folder(root, cache, outside)


def read_files(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    content = file_digests._hash_content
    monkeypatch.setattr(file_digests, "_hash_content", lambda p: read.append(p.name) or content(p))
    digest(root, cache)
    monkeypatch.undo()
    return sorted(read)


def test_a_file_is_read_again_only_if_size_or_time_changed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = tmp_path / "cache"
    assert len(read_files(root, cache, monkeypatch)) == 4
    assert read_files(root, cache, monkeypatch) == []
    os.utime(root / "class1" / "1.png", (time.time() - 50,) * 2)
    assert read_files(root, cache, monkeypatch) == ["1.png"]
    (root / "class1" / "3.png").write_bytes(b"now")  # may change again at once
    assert read_files(root, cache, monkeypatch) == ["3.png"]
    assert read_files(root, cache, monkeypatch) == ["3.png"]


def test_content_names_and_number_count_but_not_the_place(root: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    first = digest(root, cache)
    assert digest(root, None) == first
    moved = shutil.copytree(root, tmp_path / "moved")
    assert digest(moved, cache) == first
    (moved / ".hidden").write_text("x")
    (moved / "outputs").mkdir()
    (moved / "outputs" / "row.json").write_text("x")
    assert digest(moved, cache, moved / "outputs") == first
    (moved / "class0" / "0.png").rename(moved / "class1" / "0.png")
    assert digest(moved, cache, moved / "outputs") != first
    again = shutil.copytree(root, tmp_path / "again")
    path = again / "class0" / "2.png"
    path.write_bytes(b"\x09" * 10)  # the same size
    assert digest(again, cache) != first


@pytest.mark.parametrize("broken", ["", "[]", '{"format": 1}', '{"format":1,"files":{"a":[1]}}'])
def test_broken_hashes_are_made_again(root: Path, tmp_path: Path, broken: str):
    cache = tmp_path / "cache"
    first = digest(root, cache)
    (kept,) = (cache / "digests").iterdir()
    assert len(json.loads(kept.read_text())["files"]) == 4
    kept.write_text(broken)
    assert digest(root, cache) == first
    assert len(json.loads(kept.read_text())["files"]) == 4


def test_what_is_no_file_is_not_opened(root: Path):
    os.mkfifo(root / "class0" / "pipe.png")
    (root / "class0" / "loop.png").symlink_to(root / "class0" / "loop.png")
    names = [root / "class0" / n for n in ("pipe.png", "loop.png", "absent.png")]
    assert FileDigests(root, None).hash_files(names) == ["unreadable"] * 3
    assert len(digest(root, None)) == 16
