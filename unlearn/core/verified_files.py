"""Cache files that are verified when they are read.

A cache file is an archive of ``torch.save`` with a seal as its ZIP comment: a hash of the key under
which it was written, and the SHA-256 of all bytes before. Reasons:

- ``torch.load`` ignores the CRC-32 of the archive's records: a flipped bit becomes a weight.
- One file, written elsewhere and renamed. A kill leaves the old file or the new one; a digest in a
  second file could belong to another version of the first.
- A comment is part of the format. ``torch.load``, also with ``mmap=True``, reads the file as before,
  and ``unzip -z`` shows the seal. Hashing takes 1 MiB of memory.
- It covers all bytes. The CRC-32 leave out headers, padding and the list of records.
- Processors have instructions for SHA-256; ``python -m benchmarks checksums`` measures the cost.

Files without a seal, such as those of earlier versions, are verified by the CRC-32 of their records,
which ``torch.save`` writes. Nothing is then known about their key.
"""

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unlearn.core.files import ZIP_END, open_regular_file, write_atomically

_NAME, _BETWEEN, _KEY_SIZE, _DIGEST_SIZE = b"unlearn seal 1, key ", b", sha256 ", 16, 64
_SEAL_SIZE = len(_NAME) + _KEY_SIZE + len(_BETWEEN) + _DIGEST_SIZE
_END_SIZE = 22  # of the record that ends an archive; the last two bytes count the comment
_BLOCK = 1 << 20


class BrokenFileError(ValueError):
    """A file is not as it was written; the message gives the reason, without the path."""


def write_verified(path: Path, write: Callable[[Path], Any], key: str = "") -> None:
    """Write an archive of ``torch.save`` by rename, sealed.

    Args:
        path: The file.
        write: Writes the archive to the path that it is given.
        key: Identity of the content, which the reader expects.
    """

    def write_sealed(part: Path) -> None:
        write(part)
        seal_file(part, key)

    write_atomically(path, write_sealed)


def seal_file(path: Path, key: str = "") -> None:
    """Append the seal to an archive of ``torch.save``.

    Raises:
        ValueError: If the file is something else.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_SIZE))
        end = file.read()
        if len(end) < _END_SIZE or not end.startswith(ZIP_END) or end[-2:] != bytes(2):
            raise ValueError(f"{path.name} is not an archive of torch.save")
        file.seek(size - 2)
        file.write(_SEAL_SIZE.to_bytes(2, "little") + _NAME + _hash_key(key) + _BETWEEN)
        file.write(_hash_start(file, size + _SEAL_SIZE - _DIGEST_SIZE))


def check_file(path: Path, key: str | None = None) -> None:
    """Check that an archive of ``torch.save`` is as it was written.

    Args:
        path: The file.
        key: The key under which it must have been written; None: any.

    Raises:
        BrokenFileError: If it is not, or cannot be read.
    """
    with _reported(), open_regular_file(path) as file:
        if not _check_seal(file, key):
            _check_records(file)


def check_seal(path: Path) -> None:
    """Check a file that may have a seal, and accept any that has none.

    Raises:
        BrokenFileError: If it does not match its seal, or cannot be read.
    """
    with _reported(), open_regular_file(path) as file:
        _check_seal(file, None)


def set_aside(path: Path) -> str:
    """Rename a broken file to ``<name>.broken``, over an earlier one; return what was done."""
    broken = path.with_name(f"{path.name}.broken")
    try:
        os.replace(path, broken)
    except OSError as error:
        return f"it cannot be set aside: {error.strerror}"
    return f"set aside as {broken.name}"


def get_folder_key(path: Path) -> str:
    """Return the name of a file's folder, which in the checkpoint cache is the model's key."""
    return path.absolute().parent.name


@contextlib.contextmanager
def _reported() -> Any:
    try:
        yield
    except OSError as error:
        raise BrokenFileError(error.strerror or type(error).__name__) from error


def _check_seal(file: io.BufferedReader, key: str | None) -> bool:
    """Check the seal; return False if there is none."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - _SEAL_SIZE))
    seal = file.read()
    if len(seal) < _SEAL_SIZE or not seal.startswith(_NAME):
        return False
    if seal[-_DIGEST_SIZE:] != _hash_start(file, size - _DIGEST_SIZE):
        raise BrokenFileError("its bytes do not match their SHA-256")
    if key is not None and not seal.startswith(_NAME + _hash_key(key)):
        raise BrokenFileError("it was written under another key")
    return True


def _check_records(file: io.BufferedReader) -> None:
    """Check the records of an archive without a seal."""
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.comment or any(one.compress_type for one in archive.infolist()):
                raise BrokenFileError("it is not an archive of torch.save, or its seal is damaged")
            wrong = archive.testzip()
    except BrokenFileError:
        raise
    except Exception as error:  # the type depends on the bytes
        raise BrokenFileError(f"it is not a complete archive of torch.save ({error})") from error
    if wrong is not None:
        raise BrokenFileError(f"its record {wrong} does not match its CRC-32")


def _hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).hexdigest()[:_KEY_SIZE].encode()


def _hash_start(file: io.BufferedReader | io.BufferedRandom, size: int) -> bytes:
    """Return the SHA-256 of the first bytes of a file, hex digits, and leave it behind them."""
    digest, block, left = hashlib.sha256(), bytearray(_BLOCK), size
    view = memoryview(block)
    file.seek(0)
    while left:
        count = file.readinto(view[: min(left, _BLOCK)])
        if not count:
            raise BrokenFileError("it became shorter while it was read")
        digest.update(view[:count])
        left -= count
    return digest.hexdigest().encode()
