"""Data sets that torchvision downloads, read straight from their arrays.

Shapes: N samples, C H W image.
"""

from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock
from torch import Tensor

from unlearn.data.dataset import Dataset, DatasetOptions

NAMES = ("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN")


class Arrays(Protocol):
    """The part of torchvision's data sets that is read; labels are ``targets`` or ``labels``."""

    data: Any


@dataclass(frozen=True, kw_only=True)
class TorchvisionDataset(DatasetOptions):
    """One of torchvision's small image sets.

    Attributes:
        name: Class in torchvision.datasets, one of ``NAMES``.
        root: Folder of the files.
        download: Fetch them if they are not there (with progress and checksum).
    """

    name: str
    root: str
    download: bool

    def __post_init__(self) -> None:
        """Check the name."""
        super().__post_init__()
        if self.name not in NAMES:
            raise ValueError(f"dataset.name must be one of {', '.join(NAMES)}, got {self.name}")

    def load(self) -> Dataset:
        """Return the data set; downloaded on first use.

        Raises:
            ValueError: If the files are neither there nor to be had.
        """
        parts = [self._split(train) for train in (True, False)]
        classes = getattr(parts[0], "classes", None) or [str(i) for i in range(10)]
        return self.finish(arrays(parts[0]), arrays(parts[1]), tuple(map(str, classes)))

    def _split(self, train: bool) -> Arrays:
        from torchvision import datasets  # slow to import

        kind: type[Any] = getattr(datasets, self.name)
        which: dict[str, Any] = {"train": train}
        if self.name == "SVHN":
            which = {"split": "train" if train else "test"}
        try:
            return kind(self.root, **which, download=False)
        except RuntimeError as absent:
            if not self.download:
                raise ValueError(
                    f"{self.name} is not in dataset.root={Path(self.root).resolve()} and "
                    "dataset.download is false"
                ) from absent
        try:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            with FileLock(Path(self.root) / f".{self.name}.lock"):  # two jobs of a sweep
                return kind(self.root, **which, download=True)
        except (OSError, RuntimeError, HTTPException, EOFError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(": ")
            raise ValueError(
                f"could not download {self.name} ({reason}); without network, put by hand: "
                f"{', '.join(files_by_hand(kind, Path(self.root).resolve()))} (dataset.root)"
            ) from error


def files_by_hand(kind: type[Arrays], root: Path) -> list[str]:
    """Return the files that a class of torchvision looks for below ``root``."""
    known = vars(kind)
    if "split_list" in known:  # SVHN: one file per split
        return [str(root / known["split_list"][split][1]) for split in ("train", "test")]
    if "filename" in known:  # CIFAR: the archive; torchvision checks and unpacks it
        return [str(root / known["filename"])]
    raw = root / kind.__name__ / "raw"
    return [str(raw / name.removesuffix(".gz")) for name, _ in known["resources"]]


def arrays(split: Arrays) -> tuple[Tensor, Tensor]:
    """Return uint8 images (N, C, H, W) and int64 labels (N,) of a torchvision data set."""
    image = torch.as_tensor(split.data)
    if image.ndim == 3:
        image = image[:, None]
    elif image.shape[-1] == 3:
        image = image.permute(0, 3, 1, 2)
    label = getattr(split, "targets", None)
    label = getattr(split, "labels", None) if label is None else label
    return image.to(torch.uint8).contiguous(), torch.as_tensor(label).long()
