"""Forget sets from a user's file: names or ids of images, with true labels where they are known.

Ours. Shapes: N training samples, K classes.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from unlearn.data.datasets.base import Dataset
from unlearn.data.forget_sets.base import ForgetSet, Requests
from unlearn.data.forget_sets.sample_list import ImageIndex, is_json, parse_list, read_names
from unlearn.data.task import Truth

log = logging.getLogger(__name__)


def restore_listed(dataset: Dataset, wanted: Sequence[str]) -> Dataset:
    """Return the data set with test images of these names moved back to the training set.

    A bad image must be in the training set to be forgotten, and must not be used for testing.
    """
    if not dataset.split_off:
        return dataset
    off, train = ImageIndex(dataset.split_off, 0), ImageIndex(dataset.files, len(dataset.train))
    found = {off.find_file(name) for name in wanted if train.find_file(name) is None}
    rows = sorted(row for row in found if row is not None)
    if not rows:
        return dataset
    log.info("moved listed images from the test set to the training set: %d", len(rows))
    return dataset.add_test_images(torch.tensor(rows))


class FromFile(ForgetSet):
    """A user's list: file names or ids, one per line, with true labels where known (CSV, text).

    Or ids in a JSON file: a list, or a list of lists for successive requests.

    Attributes:
        true_label: int64 (N,), -1 where unknown; None if the file has no labels.
    """

    needs: ClassVar[tuple[str, ...]] = ("names", "class_names")

    def __init__(self, *, path: str) -> None:
        """Store the path."""
        self.path = Path(path)
        self.notes: dict[str, Any] = {"kind": "file"}
        self.true_label = None

    def restore_listed(self, dataset: Dataset) -> Dataset:
        """Return the data set with listed test images moved back to the training set."""
        return dataset if is_json(self.path) else restore_listed(dataset, read_names(self.path))

    def __call__(
        self,
        truth: Truth,
        *,
        rate: float,
        seed: int,
        names: ImageIndex | None = None,
        class_names: Sequence[str] = (),
    ) -> Requests:
        """Return the requests of the file; ``rate`` and ``seed`` are unused.

        Args:
            truth: Ground truth; only its length is used.
            rate: Unused.
            seed: Unused.
            names: Names of the training images; None: only ids.
            class_names: K names, for true labels.

        Raises:
            ValueError: If a line does not name a new training sample; names the line.
        """
        if not is_json(self.path):
            return self._from_lines(len(truth.clean_label), names, class_names)
        try:
            content = json.loads(self.path.read_text())
            lists = content if content and isinstance(content[0], list) else [content]
            if not all(isinstance(i, int) for part in lists for i in part):
                raise ValueError("not all are whole numbers")
            requests = [torch.tensor(part, dtype=torch.long) for part in lists]
        except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(
                f"forget_set.path must be a JSON file with a list of indices, got {self.path}: "
                f"{error}"
            ) from error
        every = torch.cat(requests)
        total = len(truth.clean_label)
        if (
            not all(len(r) for r in requests)
            or not 0 <= int(every.min()) <= int(every.max()) < total
        ):
            raise ValueError(f"forget_set.path: {self.path} must hold indices in 0..{total - 1}")
        if len(every.unique()) < len(every):
            raise ValueError(f"forget_set.path: {self.path} names a sample twice")
        return tuple(r.sort().values for r in requests)

    def _from_lines(
        self, total: int, names: ImageIndex | None, class_names: Sequence[str]
    ) -> Requests:
        found = parse_list(self.path, names or ImageIndex(None, total), class_names)
        if len(found) == total:
            raise ValueError(f"forget_set.path: {self.path} names all {total} training images")
        known = {row: label for row, label in found.items() if label is not None}
        if known:
            self.true_label = torch.full((total,), -1)
            self.true_label[list(known)] = torch.tensor(list(known.values()))
        return (torch.tensor(sorted(found)),)
