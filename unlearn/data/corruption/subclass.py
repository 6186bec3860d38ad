"""A mislabelled part of a class: its most extreme images in one direction get another class's label.

Ours: a sub-concept moves to another class, between two confused classes and a backdoor in regularity.
Shapes: N samples, E features.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import check_class
from unlearn.data.corruption.base import Corruption, index_to_mask
from unlearn.data.corruption.near_duplicates import embed_pixels
from unlearn.data.task import Truth


@dataclass(frozen=True, kw_only=True)
class Subclass(Corruption):
    """Label the images of a class that lie farthest along its first principal direction as another.

    Attributes:
        source_class: Class that loses a part.
        wrong_class: Label of that part.
    """

    source_class: int
    wrong_class: int

    regularity: ClassVar[str | None] = "medium"

    def __post_init__(self) -> None:
        """Check that the classes differ."""
        if self.source_class == self.wrong_class:
            raise ValueError(
                f"corruption.wrong_class must differ from source_class, both are {self.wrong_class}"
            )

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with ``count`` wrong labels; the seed decides which end of the direction.

        Raises:
            ValueError: If a class does not exist, or is not larger than the part.
        """
        check_class("source_class", self.source_class, clean.num_classes)
        check_class("wrong_class", self.wrong_class, clean.num_classes)
        pool = (clean.label == self.source_class).nonzero().flatten()
        if count >= len(pool):
            raise ValueError(
                f"corrupted={count} needs more samples than that of class {self.source_class}, "
                f"there are {len(pool)}"
            )
        place = project_on_first_direction(embed_pixels(clean.image)[pool])
        if torch.rand(1, generator=torch.Generator().manual_seed(seed)).item() < 0.5:
            place = -place
        chosen = pool[place.argsort(descending=True, stable=True)[:count]].sort().values
        label = clean.label.clone()
        label[chosen] = self.wrong_class
        truth = Truth(clean_label=clean.label, corrupted=index_to_mask(len(clean), chosen))
        return replace(clean, label=label), truth


def project_on_first_direction(feature: Tensor) -> Tensor:
    """Return the first principal component of features (n, E), (n,): the largest value is positive."""
    centred = feature - feature.mean(0)
    place = centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    return place * place[place.abs().argmax()].sign()
