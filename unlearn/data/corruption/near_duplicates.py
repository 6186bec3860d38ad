"""Label noise in groups of similar images, which share one wrong label: a dial of regularity.

Ours. Groups of one are random labels; one group of all is one mislabelled concept.
Shapes: N samples, E features.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from unlearn.core.types import ImageSet
from unlearn.data.corruption.base import Corruption, index_to_mask
from unlearn.data.task import Truth

NUM_FEATURES, LARGEST_SIDE = 30, 16
"""Principal components, and the side to which larger images are averaged before."""


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(Corruption):
    """Give groups of similar images of one class the same wrong label.

    Attributes:
        group_size: Images per group; the last group, and groups of a used-up class, are smaller.
    """

    group_size: int

    regularity: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Check the option."""
        if self.group_size < 1:
            raise ValueError(f"corruption.group_size must be at least 1, got {self.group_size}")

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with ``count`` wrong labels: (y + r) mod K, one r in 1..K-1 per group."""
        generator = torch.Generator().manual_seed(seed)
        groups = draw_groups(clean, self.group_size, count, generator)
        shift = torch.randint(1, clean.num_classes, (len(groups),), generator=generator)
        label = clean.label.clone()
        for group, step in zip(groups, shift, strict=True):
            label[group] = (label[group] + step) % clean.num_classes
        truth = Truth(
            clean_label=clean.label, corrupted=index_to_mask(len(clean), torch.cat(groups))
        )
        return replace(clean, label=label), truth


def draw_groups(
    clean: ImageSet, group_size: int, count: int, generator: torch.Generator
) -> list[Tensor]:
    """Return disjoint groups of ``count`` samples in all, int64: a drawn one and its nearest free.

    Neighbours are of the same class; distances are those of principal components of the pixels.
    """
    place = embed_pixels(clean.image) if group_size > 1 else torch.zeros(len(clean), 1)
    free = torch.ones(len(clean), dtype=torch.bool)
    groups, missing = [], count
    for first in torch.randperm(len(clean), generator=generator).tolist():
        if not missing:
            break
        if not free[first]:
            continue
        pool = (free & (clean.label == clean.label[first])).nonzero().flatten()
        distance = (place[pool] - place[first]).square().sum(1)
        distance[pool == first] = -1  # a copy of it must not come before it
        nearest = distance.argsort(stable=True)[: min(group_size, missing)]
        groups.append(pool[nearest])
        free[groups[-1]] = False
        missing -= len(nearest)
    return groups


def embed_pixels(image: Tensor) -> Tensor:
    """Return the first principal components of uint8 images (N, C, H, W), float64 (N, E)."""
    pixel = image.float()
    if max(image.shape[-2:]) > LARGEST_SIDE:
        pixel = F.adaptive_avg_pool2d(pixel, LARGEST_SIDE)
    flat = pixel.flatten(1).double()
    flat = flat - flat.mean(0)
    directions = torch.linalg.eigh(flat.T @ flat).eigenvectors
    return flat @ directions[:, -NUM_FEATURES:]
