"""A user's own trusted set: a folder of images, or a list of verified training images.

Shapes: N training samples, n trusted images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.base import Dataset
from unlearn.data.datasets.image_folder import ImageFolder
from unlearn.data.forget_sets.sample_list import ImageIndex, parse_list
from unlearn.data.task import Truth
from unlearn.data.trusted_sets.base import TrustedDraw, TrustedSource, select_images


@dataclass(frozen=True, kw_only=True)
class TrustedFolder(TrustedSource):
    """Images with right labels in a folder with a folder per class; not part of the training set.

    Attributes:
        root: The folder.
        mean: Channel means of images in [0, 1], as used in training.
        std: Channel standard deviations of images in [0, 1], as used in training.
        image_size: Height and width of the training images.
        cache_dir: Folder of the cache of decoded images.
    """

    source: ClassVar[str] = "folder"
    root: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    cache_dir: str

    def __call__(
        self,
        train: ImageSet,
        truth: Truth,
        forget: Tensor,
        *,
        dataset: Dataset,
        held_out: ImageSet | None,
    ) -> TrustedDraw:
        """Return the images of the folder, with indices after N; see ``TrustedSource``."""
        if not Path(self.root).is_dir():
            raise ValueError(f"trusted.root must be a folder, got {self.root}")
        found = self._read_folder()
        unknown = sorted(set(found.class_names) - set(dataset.class_names))
        if unknown:
            raise ValueError(
                f"trusted.root={self.root} has folders that are no classes of the training set: "
                f"{', '.join(unknown)}"
            )
        image, label = (
            torch.cat([getattr(part, key) for part in (found.train, found.test)])
            for key in ("image", "label")
        )
        if image.shape[1:] != train.image.shape[1:]:
            raise ValueError(
                f"trusted.root: images {tuple(image.shape[1:])} do not fit the training images "
                f"{tuple(train.image.shape[1:])}"
            )
        number = torch.tensor([dataset.class_names.index(name) for name in found.class_names])
        index = len(train) + torch.arange(len(label))
        own = ImageSet(image, number[label], index, train.num_classes, dataset.train.view)
        return TrustedDraw(own.to(train.label.device))

    def _read_folder(self) -> Dataset:
        try:
            return ImageFolder(
                root=self.root, test_fraction=0.5, unreadable="fail", cache_dir=self.cache_dir,
                num_classes=None, num_train=None, num_test=None, image_size=self.image_size,
                mean=self.mean, std=self.std, augment=Augment(crop_padding=0, flip_rate=0.0, cutout=0),
            ).load()  # fmt: skip
        except ValueError as error:
            raise ValueError(str(error).replace("dataset.root", "trusted.root")) from error


@dataclass(frozen=True, kw_only=True)
class TrustedList(TrustedSource):
    """Training images that somebody verified, by name or id; a label in the list is the right one.

    Attributes:
        path: CSV or text file, one image a line.
    """

    source: ClassVar[str] = "file"
    path: str

    def __call__(
        self,
        train: ImageSet,
        truth: Truth,
        forget: Tensor,
        *,
        dataset: Dataset,
        held_out: ImageSet | None,
    ) -> TrustedDraw:
        """Return the listed images; see ``TrustedSource``."""
        index = ImageIndex(dataset.files, len(train), test_folder=dataset.split_off is None)
        found = parse_list(Path(self.path), index, dataset.class_names, key="trusted.path")
        rows = torch.tensor(sorted(found))
        both = rows[torch.isin(rows, forget.cpu())].tolist()
        if both:
            named = dataset.files[both[0]] if dataset.files else both[0]
            raise ValueError(
                f"trusted.path: {self.path} lists {len(both)} images of the forget set, such as {named}"
            )
        label = train.label.cpu().clone()
        for row, value in found.items():
            label[row] = label[row] if value is None else value
        return TrustedDraw(select_images(train, rows, label, dataset))
