"""Trusted set that the original model was not trained on. Ours, after the protocols of I-BAU and CUTS."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.datasets.base import Dataset
from unlearn.data.task import Truth
from unlearn.data.trusted_sets.base import DrawOptions, TrustedDraw, TrustedSource


@dataclass(frozen=True, kw_only=True)
class HeldOut(DrawOptions, TrustedSource):
    """Take images out of the training set before it is corrupted: another original model is trained."""

    source: ClassVar[str] = "held_out"

    def hold_out(self, dataset: Dataset) -> tuple[Dataset, ImageSet | None]:
        """Return the data set without the drawn images, and these, with indices after its last one."""
        label = dataset.train.label
        held = torch.zeros(len(label), dtype=torch.bool)
        held[self.draw_rows(torch.arange(len(label)), label)] = True
        if bool(held.all()):
            raise ValueError(f"trusted.size={self.size:g} leaves no training image")
        rest = int((~held).sum())
        train = replace(dataset.train.rows(~held), index=torch.arange(rest))
        known = replace(dataset.train.rows(held), index=torch.arange(rest, len(label)))
        files = dataset.files and tuple(
            f for f, out in zip(dataset.files, held.tolist(), strict=True) if not out
        )
        return replace(dataset, train=train, files=files), known

    def __call__(
        self,
        train: ImageSet,
        truth: Truth,
        forget: Tensor,
        *,
        dataset: Dataset,
        held_out: ImageSet | None,
    ) -> TrustedDraw:
        """Return the held-out images; see ``TrustedSource``."""
        if held_out is None:
            raise ValueError(
                "trusted=held_out needs training here; your model has its training set"
            )
        return TrustedDraw(held_out.to(train.label.device))
