"""Data sets that torchvision downloads, read from their arrays.

Shapes: N samples, C H W image.
"""

from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from filelock import FileLock
from torch import Tensor

from unlearn.data.datasets.base import Dataset, DatasetOptions

NAMES = ("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN")

SPLITS = {"SVHN": ("train", "test"), "GTSRB": ("train", "test"), "Imagenette": ("train", "val")}
"""Names of the splits in torchvision; of others, ``train`` is true or false."""

ARCHIVES = {
    "GTSRB": (
        "gtsrb/GTSRB-Training_fixed.zip",
        "gtsrb/GTSRB_Final_Test_Images.zip",
        "gtsrb/GTSRB_Final_Test_GT.zip",
    ),
    "Imagenette": ("imagenette2-160.tgz",),
}
"""Archives that torchvision unpacks, below the root."""

BROKEN = (RuntimeError, ValueError, AssertionError)
"""Errors of torchvision for absent or torn files."""


class Arrays(Protocol):
    """The arrays of torchvision's data sets; labels are ``targets`` or ``labels``."""

    data: Any


@dataclass(frozen=True, kw_only=True)
class TorchvisionDataset(DatasetOptions):
    """One of torchvision's small image sets.

    Attributes:
        name: Class in torchvision.datasets, one of ``NAMES``.
        root: Folder of the files.
        download: Download missing files (with progress and checksum).
    """

    names: ClassVar[tuple[str, ...]] = NAMES
    absent: ClassVar[tuple[type[Exception], ...]] = BROKEN

    name: str
    root: str
    download: bool

    def __post_init__(self) -> None:
        """Check the name."""
        super().__post_init__()
        if self.name not in self.names:
            raise ValueError(
                f"dataset.name must be one of {', '.join(self.names)}, got {self.name}"
            )

    def load(self) -> Dataset:
        """Return the data set; downloaded on first use.

        Raises:
            ValueError: If the files are missing and cannot be downloaded, or are torn.
        """
        parts = [self.load_split(train) for train in (True, False)]
        classes = getattr(parts[0], "classes", None) or [str(i) for i in range(10)]
        return self.build_dataset(
            to_arrays(parts[0]), to_arrays(parts[1]), tuple(map(str, classes))
        )

    def get_options(self) -> dict[str, Any]:
        """Return further arguments of the class in torchvision."""
        return {}

    def load_split(self, train: bool) -> Any:
        """Return torchvision's object of a split, downloaded if it is absent.

        Raises:
            ValueError: If the files are missing and cannot be downloaded, or are torn.
        """
        from torchvision import datasets  # slow to import

        kind: type[Any] = getattr(datasets, self.name)
        which: dict[str, Any] = {"train": train}
        if self.name in SPLITS:
            which = {"split": SPLITS[self.name][0 if train else 1]}
        which |= self.get_options()
        try:
            return kind(self.root, **which, download=False)
        except self.absent as absent:
            if not self.download:
                check_torn(kind, Path(self.root).resolve(), absent)
                raise ValueError(
                    f"{self.name} is not in dataset.root={Path(self.root).resolve()} and "
                    "dataset.download is false"
                ) from absent
        try:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            with FileLock(Path(self.root) / f".{self.name}.lock"):  # two jobs of a sweep
                return kind(self.root, **which, download=True)
        except (*BROKEN, OSError, HTTPException, EOFError) as error:
            # Checked under the lock: another job may have been unpacking before.
            check_torn(kind, Path(self.root).resolve(), error)
            raise ValueError(
                f"could not download {self.name} ({error_line(error)}); copy manually: "
                f"{', '.join(files_by_hand(kind, Path(self.root).resolve()))} (dataset.root)"
            ) from error


def files_by_hand(kind: type[Arrays], root: Path) -> list[str]:
    """Return the files that a class of torchvision expects below ``root``."""
    known = vars(kind)
    if kind.__name__ in ARCHIVES:
        return [str(root / name) for name in ARCHIVES[kind.__name__]]
    if "split_list" in known:  # SVHN: one file per split
        return [str(root / known["split_list"][split][1]) for split in ("train", "test")]
    if "filename" in known:  # CIFAR: the archive; torchvision checks and unpacks it
        return [str(root / known["filename"])]
    raw = root / kind.__name__ / "raw"
    return [str(raw / name.removesuffix(".gz")) for name, _ in known["resources"]]


def error_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(": ")


def check_torn(kind: type[Arrays], root: Path, error: BaseException) -> None:
    """Check that ``error`` is not caused by existing but torn files.

    Only for the MNIST family: torchvision checks and repairs the others itself.

    Raises:
        ValueError: If all files exist.
    """
    files = [Path(file) for file in files_by_hand(kind, root)]
    if "resources" in vars(kind) and all(file.is_file() for file in files):
        raise ValueError(
            f"broken file of {kind.__name__} in {files[0].parent} ({error_line(error)}); "
            "delete that folder and run again with dataset.download=true"
        ) from error


def to_arrays(split: Arrays) -> tuple[Tensor, Tensor]:
    """Return uint8 images (N, C, H, W) and int64 labels (N,) of a torchvision data set."""
    image = torch.as_tensor(split.data)
    if image.ndim == 3:
        image = image[:, None]
    elif image.shape[-1] == 3:
        image = image.permute(0, 3, 1, 2)
    label = getattr(split, "targets", None)
    label = getattr(split, "labels", None) if label is None else label
    return image.to(torch.uint8).contiguous(), torch.as_tensor(label).long()
