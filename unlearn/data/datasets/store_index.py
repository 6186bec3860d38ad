"""What an image store holds: a table in a sealed file beside the images.

Shapes: N images, C channels.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlearn.core.verified_files import BrokenFileError, check_file, write_verified

ABSENT, STORED, UNREADABLE = 0, 1, 2
DIGEST_BYTES = 16


@dataclass
class StoreIndex:
    """The images of a store.

    Attributes:
        state: uint8 (N,): ABSENT, STORED or UNREADABLE.
        start: First byte of each image in the store, int64 (N,).
        size: Its number of bytes, int64 (N,).
        content: Hash of these bytes, uint8 (N, 16).
        pixels: Hash of the decoded image, uint8 (N, 16).
        maxima: Largest value of each channel, uint8 (N, C).
        fast: bool (N,): torchvision decodes the bytes to the same pixels.
        reasons: Why an image is unreadable, by its row in decimal digits; may be empty.
    """

    state: Tensor
    start: Tensor
    size: Tensor
    content: Tensor
    pixels: Tensor
    maxima: Tensor
    fast: Tensor
    reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make_empty(cls, count: int, channels: int) -> "StoreIndex":
        """Return the index of a store without images."""

        def make_bytes(*shape: int) -> Tensor:
            return torch.zeros(count, *shape, dtype=torch.uint8)

        return cls(
            state=make_bytes(),
            start=torch.zeros(count, dtype=torch.int64),
            size=torch.zeros(count, dtype=torch.int64),
            content=make_bytes(DIGEST_BYTES),
            pixels=make_bytes(DIGEST_BYTES),
            maxima=make_bytes(channels),
            fast=torch.zeros(count, dtype=torch.bool),
        )

    @classmethod
    def read(cls, path: Path, key: str, count: int, channels: int) -> "StoreIndex | None":
        """Return the index in a file; None if there is no file.

        Raises:
            BrokenFileError: If it is broken, or the index of other images.
        """
        if not path.exists():
            return None
        check_file(path, key)
        try:
            found = cls(**torch.load(path, weights_only=True))
            empty = cls.make_empty(count, channels)
            for name, value in empty.to_dict().items():
                own = getattr(found, name)
                if isinstance(value, Tensor) and (own.shape, own.dtype) != (
                    value.shape,
                    value.dtype,
                ):
                    raise BrokenFileError(f"its {name} does not fit")
        except Exception as error:  # the type depends on the content of the file
            raise BrokenFileError(str(error).splitlines()[0] or type(error).__name__) from error
        return found

    def write(self, path: Path, key: str) -> None:
        """Write the index to a sealed file, by rename.

        Raises:
            OSError: If it cannot be written.
        """
        try:
            write_verified(path, lambda part: torch.save(self.to_dict(), part), key)
        except RuntimeError as error:  # torch's writer raises its own error type
            raise OSError(str(error).splitlines()[0]) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}

    def find_absent(self, rows: Tensor) -> Tensor:
        """Return the rows among ``rows``, int64 (n,), that are not decoded yet."""
        return rows[self.state[rows] == ABSENT]
