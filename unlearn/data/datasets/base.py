"""The data set, and the steps that all data sets share.

Shapes: N samples, C H W image.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from unlearn.core.stored_images import StoredImages, concatenate, take_rows
from unlearn.core.types import ImageSet
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.normalization import Normalize

log = logging.getLogger(__name__)

SUBSET_SEED = 20_250_523
"""Seed of subsets, independent of the run's seed."""


@dataclass(frozen=True)
class Dataset:
    """A clean data set.

    Attributes:
        train: Training set, index 0..N-1.
        test: Test set.
        class_names: K names.
        augment: Batch augmentation for training; None: none.
        files: ``<class>/<name>`` of each training image, relative to the folder that holds the
            class folders (``root/train`` or ``root``); None if there are no files.
        validation: Held-out part of the training images; None if nothing is held out.
        split_off: Files of the test images, if they were split off from the training images' folder.
    """

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    augment: Augment | None
    files: tuple[str, ...] | None = None
    validation: ImageSet | None = None
    split_off: tuple[str, ...] | None = None

    def reorder_classes(self, names: Sequence[str]) -> "Dataset":
        """Return the data set with reordered classes.

        Args:
            names: Names of all classes, in the order of a model's outputs.

        Raises:
            ValueError: If they are not the classes of the data.
        """
        if sorted(names) != sorted(self.class_names):
            raise ValueError(
                f"class_order must name each of {', '.join(self.class_names)} once, "
                f"got {', '.join(map(str, names))}"
            )
        new = torch.tensor([list(names).index(name) for name in self.class_names])
        parts = {
            key: replace(part, label=new[part.label])
            for key in ("train", "test", "validation")
            if (part := getattr(self, key)) is not None
        }
        return replace(self, **parts, class_names=tuple(names))

    def add_test_images(self, rows: Tensor) -> "Dataset":
        """Return the data set with test images ``rows`` (n,) appended to the training set."""
        moved, stays = self.test.rows(rows), torch.ones(len(self.test), dtype=torch.bool)
        stays[rows] = False
        image = concatenate([self.train.image, moved.image])
        label = torch.cat([self.train.label, moved.label])
        test = replace(self.test.rows(stays), index=torch.arange(int(stays.sum())))
        names = self.split_off or ()
        return replace(
            self,
            train=replace(self.train, image=image, label=label, index=torch.arange(len(label))),
            test=test,
            files=(*(self.files or ()), *(names[i] for i in rows.tolist())),
            split_off=tuple(n for n, stay in zip(names, stays.tolist(), strict=True) if stay),
        )

    def hold_out(self, share: float) -> "Dataset":
        """Return the data set with a share of every class moved from training to validation.

        Which images that are does not depend on the run's seed.

        Args:
            share: Fraction in (0, 1).

        Raises:
            ValueError: If one of the two sets is empty.
        """
        label = self.train.label
        wanted = round(share * len(label))
        if not 0 < wanted < len(label):
            raise ValueError(f"validation={share} of {len(label)} images leaves a set empty")
        held = torch.zeros(len(label), dtype=torch.bool)
        held[select_balanced(label, wanted, "validation")] = True
        train, validation = (
            replace(part, index=torch.arange(len(part)))
            for part in (self.train.rows(~held), self.train.rows(held))
        )
        files = self.files and tuple(f for f, h in zip(self.files, held, strict=True) if not h)
        return replace(self, train=train, validation=validation, files=files)


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Options of all data sets.

    Attributes:
        num_classes: K, checked against the data; None: the number in the data.
        num_train: Training images, class-balanced subset; None: all.
        num_test: Test images to use; None: all.
        image_size: Height and width in pixels; other sizes are resized.
        mean: Channel means of images in [0, 1].
        std: Channel standard deviations of images in [0, 1].
        augment: Batch augmentation.
    """

    num_classes: int | None
    num_train: int | None
    num_test: int | None
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        for key in ("num_train", "num_test", "num_classes", "image_size"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"dataset.{key} must be at least 1, got {value}")
        Normalize(tuple(self.mean), tuple(self.std))

    def build_dataset(
        self,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        class_names: tuple[str, ...],
        files: tuple[str, ...] | None = None,
        split_off: tuple[str, ...] | None = None,
    ) -> Dataset:
        """Return the data set from uint8 images (N, C, H, W) and int64 labels (N,) of both splits.

        ``files``: names of the training images; ``split_off``: names of the test images if they
        come from the same folder.

        Raises:
            ValueError: If classes or numbers of images do not fit the options.
        """
        k = len(class_names)
        if self.num_classes is not None and self.num_classes != k:
            raise ValueError(
                f"dataset.num_classes is {self.num_classes}, but the data has {k} classes"
            )
        view = Normalize(tuple(self.mean), tuple(self.std))
        sets, keeps = [], []
        for key, (image, label), wanted in (
            ("num_train", train, self.num_train),
            ("num_test", test, self.num_test),
        ):
            if image.shape[1] != len(self.mean):
                raise ValueError(
                    f"dataset.mean and dataset.std need {image.shape[1]} values, one per channel "
                    f"of the images, got {len(self.mean)}"
                )
            keep = select_balanced(label, wanted, key)
            image = resize_images(take_rows(image, keep), self.image_size)
            sets.append(ImageSet(image, label[keep], torch.arange(len(keep)), k, view))
            keeps.append(keep)
        if files is not None:
            files = tuple(files[i] for i in keeps[0].tolist())
        if split_off is not None:
            split_off = tuple(split_off[i] for i in keeps[1].tolist())
        return Dataset(
            sets[0], sets[1], class_names, self.augment, files=files, split_off=split_off
        )


def select_balanced(label: Tensor, wanted: int | None, key: str) -> Tensor:
    """Return sorted positions of ``wanted`` samples, as equal in number per class as possible.

    Raises:
        ValueError: If there are fewer.
    """
    if wanted is None or wanted == len(label):
        return torch.arange(len(label))
    if wanted > len(label):
        raise ValueError(f"dataset.{key} must be at most {len(label)}, got {wanted}")
    generator = torch.Generator().manual_seed(SUBSET_SEED)
    shuffled = torch.randperm(len(label), generator=generator)
    # The n-th samples of all classes come before the (n+1)-th of any class.
    turn = torch.empty(len(label), dtype=torch.long)
    for c in label.unique():
        own = (label[shuffled] == c).nonzero().flatten()
        turn[own] = torch.arange(len(own))
    first = turn.argsort(stable=True)[:wanted]
    return shuffled[first].sort().values


def resize_images(image: Tensor, size: int, chunk: int = 4096) -> Tensor:
    """Return uint8 images (N, C, size, size), bilinear where the size differs."""
    if isinstance(image, StoredImages):
        return image  # stored in this size
    if image.shape[-2:] == (size, size):
        return image.contiguous()
    parts = [
        F.interpolate(
            part.float(), (size, size), mode="bilinear", align_corners=False, antialias=True
        )
        for part in image.split(chunk)
    ]
    return torch.cat(parts).round_().clamp_(0, 255).to(torch.uint8)
