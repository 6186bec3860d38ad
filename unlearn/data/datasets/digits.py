"""scikit-learn's 1,797 scans of handwritten digits: real images that need no download.

Source: UCI "Optical recognition of handwritten digits", as shipped by scikit-learn.
"""

from dataclasses import dataclass
from typing import Any

import torch

from unlearn.data.datasets.base import Dataset, DatasetOptions, select_balanced

NUM_TRAIN = 1297


@dataclass(frozen=True, kw_only=True)
class Digits(DatasetOptions):
    """8x8 scans of ten digits; a fixed, class-balanced split into 1,297 and 500 images."""

    def load(self) -> Dataset:
        """Return the data set, resized to ``image_size``."""
        from sklearn.datasets import load_digits  # slow to import

        data: Any = load_digits()
        image = torch.from_numpy(data.images)[:, None].mul(255 / 16).round().to(torch.uint8)
        label = torch.from_numpy(data.target).long()
        train = select_balanced(label, NUM_TRAIN, "num_train")
        rest = torch.ones(len(label), dtype=torch.bool)
        rest[train] = False
        names = tuple(str(n) for n in data.target_names)
        return self.build_dataset((image[train], label[train]), (image[rest], label[rest]), names)
