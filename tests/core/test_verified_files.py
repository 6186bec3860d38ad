"""Sealed files: every flipped bit is found, and nothing else is refused."""

import contextlib
import os
import random
import threading
import zipfile
from pathlib import Path

import pytest
import torch

from unlearn.core.files import check_plausible, hash_file, open_regular_file
from unlearn.core.verified_files import (
    BrokenFileError,
    check_file,
    check_seal,
    seal_file,
    set_aside,
    write_verified,
)

CONTENT = {
    "w": torch.arange(3000.0).view(30, 100), "b": torch.zeros(3, dtype=torch.uint8), "n": [1, "x"],
}  # fmt: skip


def save(path: Path, key: str = "k") -> bytes:
    write_verified(path, lambda part: torch.save(CONTENT, part), key)
    return path.read_bytes()


def same(path: Path) -> bool:
    found = torch.load(path, weights_only=True)
    tensors = [torch.equal(found[n], CONTENT[n]) for n in ("w", "b")]  # type: ignore[arg-type]
    return found.keys() == CONTENT.keys() and all(tensors) and found["n"] == CONTENT["n"]


def flip(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_sealed_file_is_an_archive_as_before(tmp_path: Path):
    path = tmp_path / "new" / "a.pt"
    save(path)
    check_file(path, "k")
    check_file(path)
    check_seal(path)
    assert same(path) and [p.name for p in path.parent.iterdir()] == ["a.pt"]
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert torch.equal(mapped["w"], CONTENT["w"])  # type: ignore[arg-type]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"unlearn seal 1, key ")


def test_every_flipped_bit_is_found(tmp_path: Path):
    path = tmp_path / "a.pt"
    content = save(path)
    draw = random.Random(0)
    seal = range(8 * (len(content) - 120), 8 * len(content))  # the end and the seal, every bit
    for bit in [*(draw.randrange(8 * len(content)) for _ in range(300)), *seal]:
        path.write_bytes(flip(content, bit))
        with pytest.raises(BrokenFileError):
            check_file(path, "k")


def test_a_flipped_bit_of_an_older_file_is_found_or_changes_nothing(tmp_path: Path):
    path = tmp_path / "a.pt"
    torch.save(CONTENT, path)
    content, draw = path.read_bytes(), random.Random(1)
    check_file(path, "any")
    start = content.index(torch.arange(100.0).numpy().tobytes())
    records = [draw.randrange(8 * start, 8 * (start + 12000)) for _ in range(100)]
    for bit in records:
        path.write_bytes(flip(content, bit))
        assert not same(path)  # torch reads it all the same
        with pytest.raises(BrokenFileError, match="does not match its CRC-32"):
            check_file(path, "any")
    found = 0
    for bit in [draw.randrange(8 * len(content)) for _ in range(300)]:
        path.write_bytes(flip(content, bit))
        try:
            check_file(path, "any")
        except BrokenFileError:
            found += 1
        else:
            with contextlib.suppress(RuntimeError):  # torch itself finds it
                assert same(path)
    assert found > 200


@pytest.mark.parametrize("kind", ["sealed", "older"])
def test_files_that_are_shorter_or_longer_are_broken(tmp_path: Path, kind: str):
    path = tmp_path / "a.pt"
    content = save(path)
    if kind == "older":
        torch.save(CONTENT, path)
        content = path.read_bytes()
    draw = random.Random(2)
    lengths = [0, 1, 21, len(content) - 1, *(draw.randrange(len(content)) for _ in range(20))]
    for changed in [*(content[:n] for n in lengths), content + bytes(100_000)]:
        path.write_bytes(changed)
        with pytest.raises(BrokenFileError):
            check_file(path)


def test_a_file_under_another_key_is_refused(tmp_path: Path):
    save(tmp_path / "a.pt", "one")
    with pytest.raises(BrokenFileError, match="under another key"):
        check_file(tmp_path / "a.pt", "other")
    check_file(tmp_path / "a.pt", "one")
    check_file(tmp_path / "a.pt")


def test_files_without_a_seal_are_the_users(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"anything")
    check_seal(tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"a\.bin is not an archive of torch\.save"):
        seal_file(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"anything"
    content = save(tmp_path / "b.pt")
    (tmp_path / "b.pt").write_bytes(flip(content, 8 * 1000))
    with pytest.raises(BrokenFileError, match="SHA-256"):
        check_seal(tmp_path / "b.pt")


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path):
    content = save(tmp_path / "a.pt")

    def fail(part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_verified(tmp_path / "a.pt", fail)
    assert (tmp_path / "a.pt").read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_the_last_broken_file_is_kept(tmp_path: Path):
    path = tmp_path / "a.pt"
    for text in ("one", "two"):
        path.write_text(text)
        assert set_aside(path) == "set aside as a.pt.broken"
    assert (tmp_path / "a.pt.broken").read_text() == "two" and not path.exists()
    assert set_aside(path) == "it cannot be set aside: No such file or directory"


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    messages = {}

    def check() -> None:
        for name in ("fifo", "loop", ".", "absent"):
            with pytest.raises(BrokenFileError) as caught:
                check_file(tmp_path / name)
            messages[name] = str(caught.value)

    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    thread.join(60)
    os.close(os.open(tmp_path / "fifo", os.O_RDWR))  # frees one that waits
    assert messages == {
        "fifo": "a FIFO, not a file",
        "loop": "Too many levels of symbolic links",
        ".": "a folder, not a file",
        "absent": "No such file or directory",
    }
    with pytest.raises(OSError, match="a FIFO, not a file"):
        open_regular_file(tmp_path / "fifo")


def test_a_huge_sparse_file_is_refused_unread(tmp_path: Path):
    path, digests = tmp_path / "a.pt", set()
    for start, size, message in (
        (b"", 1 << 40, "more than the memory"),
        (b"", 1 << 30, "begins with zeros"),
        (save(path), 1 << 40, "more than the memory"),
        (save(path), 1 << 30, "the end of the archive is missing"),
    ):
        path.write_bytes(start)
        os.truncate(path, size)
        with pytest.raises(ValueError, match=message):
            check_plausible(path)
        digests.add(hash_file(path))  # a run's identity must not take minutes
        with pytest.raises(BrokenFileError, match="not a complete archive"):
            check_file(path)
    assert len(digests) == 3 and hash_file_of(tmp_path, b"abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def hash_file_of(folder: Path, content: bytes) -> str:
    (folder / "some").write_bytes(content)
    return hash_file(folder / "some")
