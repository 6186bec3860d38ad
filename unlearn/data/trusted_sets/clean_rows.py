"""Trusted set of clean training images, as in most published evaluations of backdoor defences.

As in BackdoorBench (arXiv 2206.12654), but never the clean copy of a corrupted image.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.datasets.base import Dataset
from unlearn.data.task import Truth
from unlearn.data.trusted_sets.base import (
    DrawOptions,
    TrustedDraw,
    TrustedSource,
    list_retained,
    select_images,
)


@dataclass(frozen=True, kw_only=True)
class CleanRows(DrawOptions, TrustedSource):
    """Draw from the clean images of the retain set, which they do not leave.

    This assumes that somebody verified exactly these images and met no bad one: the draw uses the
    ground truth.
    """

    source: ClassVar[str] = "clean_rows"

    def __call__(
        self,
        train: ImageSet,
        truth: Truth,
        forget: Tensor,
        *,
        dataset: Dataset,
        held_out: ImageSet | None,
    ) -> TrustedDraw:
        """Return the trusted set; see ``TrustedSource``."""
        pool = list_retained(len(train), forget)
        pool = pool[~truth.corrupted.cpu()[pool]]
        rows = self.draw_rows(pool, train.label)
        return TrustedDraw(select_images(train, rows, truth.clean_label, dataset))
