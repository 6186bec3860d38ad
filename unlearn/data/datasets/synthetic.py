"""Small generated images for tests and smoke runs: one bright blob per class plus noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.data.datasets.base import Dataset, DatasetOptions

SIZES = (200, 60)


@dataclass(frozen=True, kw_only=True)
class Synthetic(DatasetOptions):
    """200 training and 60 test images by default, learnable within seconds.

    Attributes:
        seed: Seed of patterns and noise.
    """

    seed: int

    def load(self) -> Dataset:
        """Return the data set."""
        generator = torch.Generator().manual_seed(self.seed)
        k, c, s = self.num_classes or 3, len(self.mean), self.image_size
        pattern = torch.rand(k, c, s, s, generator=generator)
        splits: list[tuple[Tensor, Tensor]] = []
        for wanted, usual in zip((self.num_train, self.num_test), SIZES, strict=True):
            label = torch.arange(max(wanted or usual, usual)) % k
            noise = torch.rand(len(label), c, s, s, generator=generator)
            image = (255 * (0.6 * pattern[label] + 0.4 * noise)).round().to(torch.uint8)
            splits.append((image, label))
        return self.build_dataset(splits[0], splits[1], tuple(str(i) for i in range(k)))
