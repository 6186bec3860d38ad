"""The user's own images, listed in a CSV table with their labels.

Shapes: N samples, C H W image.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unlearn.core import image_table
from unlearn.core.folder_layout import choose_classes
from unlearn.core.image_table import TableLine, read_table
from unlearn.data.datasets.base import Dataset
from unlearn.data.datasets.image_folder import ImageFolder, check_counts, leads_out

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImageTable(ImageFolder):
    """Images of a table with the columns path, label and, if wanted, split.

    Attributes:
        path: The table.
        root: Folder that paths are relative to and lie below; None: that of the table.
    """

    path: str
    root: str = None  # type: ignore[assignment]  # set below

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data; set the folder."""
        super().__post_init__()
        if self.root is None:
            object.__setattr__(self, "root", str(Path(self.path).parent))

    def load(self) -> Dataset:
        """Return the data set; decoded once, then read from the cache.

        Raises:
            ValueError: If the table or a listed file is invalid, or images are unreadable.
        """
        table = read_table(Path(self.path), Path(self.root))
        log.info("images: %s", table.describe(Path(self.path)))
        return self.load_table(table)

    def load_table(self, table: image_table.ImageTable) -> Dataset:
        """Return the data set of a table that has been read."""
        names = choose_classes(table.class_names, self.classes)
        table = keep_classes(table, set(names))
        self._check_files((*table.train, *(table.test or ())))
        image, label, files = self._read_lines(table.train, names)
        where, least = Path(self.path), 2 if table.test is None else 1
        check_counts(label, names, where, least=least)
        if table.test is None:
            return self.split_dataset(image, label, names, files)
        test = self._read_lines(table.test, names)
        return self.build_dataset((image, label), test[:2], tuple(names), files)

    def _check_files(self, lines: Sequence[TableLine]) -> None:
        """Check that listed files exist, and that no link leads out of the root."""
        root = Path(self.root)
        inside, known = root.resolve(), set()
        for line in lines:
            path = root / line.path
            start = f"{self.path}, line {line.number}"
            if not os.path.exists(path):  # False also for impossible names
                raise ValueError(f"{start}: no file {path}")
            if path.parent not in known and leads_out(path.parent, inside):
                raise ValueError(f"{start}: {path.parent} links to something outside of {root}")
            known.add(path.parent)
            if path.is_symlink() and leads_out(path, inside):
                raise ValueError(f"{start}: {path} links to something outside of {root}")

    def _read_lines(
        self, lines: Sequence[TableLine], names: list[str]
    ) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Return images (N, C, H, W), labels (N,) and paths of lines, without unreadable images."""
        root, number = Path(self.root), {name: i for i, name in enumerate(names)}
        image, files = self.read_files(root, [root / line.path for line in lines])
        labels = {line.path: number[line.label] for line in lines}
        return image, torch.tensor([labels[name] for name in files]), files


def keep_classes(table: image_table.ImageTable, names: set[str]) -> image_table.ImageTable:
    """Return the lines of a table whose class is one of ``names``."""
    train, test = (
        part if part is None else tuple(line for line in part if line.label in names)
        for part in (table.train, table.test)
    )
    return replace(table, train=train or (), test=test)
