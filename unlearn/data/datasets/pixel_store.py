"""Decoded images in a memory-mapped file. Shapes: n rows, C H W image."""

from pathlib import Path

import torch
from torch import Tensor

from unlearn.data.datasets.image_store import ImageStore, MadeImage, hash_bytes


class PixelStore(ImageStore):
    """Decoded pixels, one image after the other; images that are not decoded take no space."""

    kind = "pixels"

    def read(self, rows: Tensor) -> Tensor:
        """Return images uint8 (n, C, H, W) of rows int64 (n,)."""
        return self._get_map().view(-1, *self.shape)[rows]

    def _make_image(self, path: Path) -> MadeImage | str:
        image = self.decoder.decode_file(path)
        if isinstance(image, str):
            return image
        content = image.numpy().data.cast("B")
        return MadeImage(content, hash_bytes(content), image.amax((1, 2)))

    def _prepare_file(self) -> None:
        with self.path.open("ab") as file:
            file.truncate(len(self.paths) * torch.Size(self.shape).numel())

    def _reserve(self, row: int, size: int) -> int:
        return row * size
