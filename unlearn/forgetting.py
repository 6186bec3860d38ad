"""Forget sets of samples that nobody corrupted: at random, by class, by score, by entanglement.

Sources: arXiv 2406.01257, 2410.16516. What a builder needs beyond the data it names in ``needs``.
Shapes: N samples, E embedding.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn.bad_list import Names, is_json, listed, parsed
from unlearn.data.dataset import Dataset
from unlearn.forget_sets import drawn
from unlearn.grading import GROUPS, by_distance, center_of, entanglement_score, graded, picked
from unlearn.task import Truth

log = logging.getLogger(__name__)

Requests = tuple[Tensor, ...]


def count_of(size: float, total: int, multiple: int = 1) -> int:
    """Return how many of ``total`` samples to forget: a share below 1, else a count.

    Args:
        size: Share in (0, 1), rounded to the nearest multiple; or a count.
        total: Number of training samples.
        multiple: The number of equal parts.

    Raises:
        ValueError: If that is none, all, or no multiple.
    """
    count = round(size * total / multiple) * multiple if size < 1 else round(size)
    if not 1 <= count < total or count % multiple:
        raise ValueError(
            f"forget_set.size must give 1..{total - 1} of {total} samples"
            f"{f', a multiple of {multiple}' if multiple > 1 else ''}, got {size} (that is {count})"
        )
    return count


def adopted(dataset: Dataset, wanted: Sequence[str]) -> Dataset:
    """Return the data set with images of these names that were split off for testing back in training.

    A bad image must be there to be forgotten, and nothing may be measured on it.
    """
    if not dataset.split_off:
        return dataset
    off, train = Names(dataset.split_off, 0), Names(dataset.files, len(dataset.train))
    found = {off.row(name) for name in wanted if train.row(name) is None}
    rows = sorted(row for row in found if row is not None)
    if not rows:
        return dataset
    log.info("%d listed images had been split off for testing: back in training", len(rows))
    return dataset.adopt(torch.tensor(rows))


class Random:
    """Samples drawn uniformly."""

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, size: float, num_requests: int) -> None:
        """Keep the options.

        Args:
            size: Of each request: a share of the training set below 1, or a count.
            num_requests: How many requests follow one another.
        """
        self.size = size
        self.num_requests = num_requests
        self.notes: dict[str, Any] = {"kind": "random"}

    def __call__(self, truth: Truth, *, rate: float, seed: int) -> Requests:
        """Return the requests, sorted indices each; ``rate`` has nothing to act on.

        Raises:
            ValueError: If there are not enough samples.
        """
        total = len(truth.clean_label)
        count = count_of(self.size, total)
        if count * self.num_requests >= total:
            raise ValueError(
                f"forget_set.num_requests={self.num_requests} of {count} samples leave none of "
                f"{total} to retain"
            )
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        parts = order[: count * self.num_requests].split(count)
        return tuple(part.sort().values for part in parts)


class OfClass:
    """All samples of some classes, or some of them."""

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, classes: Sequence[int], size: float | None) -> None:
        """Keep the options.

        Args:
            classes: Which classes.
            size: A share of the training set below 1, or a count; None: all of these classes.
        """
        self.classes = tuple(classes)
        self.size = size
        self.notes: dict[str, Any] = {"kind": "class"}

    def __call__(self, truth: Truth, *, rate: float, seed: int) -> Requests:
        """Return one request, sorted indices; ``rate`` has nothing to act on.

        Raises:
            ValueError: If a class has no sample, or there are too few.
        """
        label = truth.clean_label.cpu()
        absent = [c for c in self.classes if not bool((label == c).any())]
        if absent or not self.classes:
            raise ValueError(f"forget_set.classes must name classes of the data, got {absent}")
        rows = torch.isin(label, torch.tensor(self.classes)).nonzero().flatten()
        if self.size is None:
            return (rows,)
        count = count_of(self.size, len(label))
        if count > len(rows):
            raise ValueError(f"forget_set.size={self.size}: these classes hold {len(rows)}")
        return (drawn(label, count, self.classes, seed),)


class Graded:
    """Samples of low, medium or high score, or a mix of all three in equal parts."""

    needs: ClassVar[tuple[str, ...]] = ("score", "center")

    def __init__(
        self,
        *,
        group: str,
        size: float,
        center: str | float | None,
        tie_seed: int,
        num_requests: int,
    ) -> None:
        """Keep the options.

        Args:
            group: "low", "mid", "high" or "mix".
            size: Of each request: a share of the training set below 1, or a count.
            center: Of the medium group: "median", "midrange", a number; None: the score's own.
            tie_seed: Of the order that breaks ties.
            num_requests: How many requests follow one another, each from what those before left.

        Raises:
            ValueError: If the group is unknown.
        """
        if group not in (*GROUPS, "mix"):
            raise ValueError(f"forget_set.group must be low, mid, high or mix, got {group}")
        self.group = group
        self.size = size
        self.center = center
        self.tie_seed = tie_seed
        self.num_requests = num_requests
        self.notes: dict[str, Any] = {"kind": "graded", "group": group}

    def __call__(
        self, truth: Truth, *, rate: float, seed: int, score: Tensor, center: str | float
    ) -> Requests:
        """Return the requests; ``rate`` and ``seed`` have nothing to act on.

        Args:
            truth: Of the task; only its length counts.
            rate: Unused.
            seed: Unused.
            score: Larger is more memorized, (N,).
            center: The score's own centre.
        """
        parts = len(GROUPS) if self.group == "mix" else 1
        each = count_of(self.size, len(score), parts) // parts
        sizes = dict.fromkeys(GROUPS if parts > 1 else (self.group,), each)
        pool, requests, displaced = torch.arange(len(score)), [], 0
        for _ in range(self.num_requests):
            values = score[pool].cpu()
            middle = center_of(values, center if self.center is None else self.center)
            groups, lost = graded(values, sizes, middle, self.tie_seed)
            displaced += lost
            chosen = pool[torch.cat(list(groups.values()))].sort().values
            requests.append(chosen)
            pool = pool[~torch.isin(pool, chosen)]
        self.notes |= {"displaced": displaced, "score_mean": score[requests[0]].mean().item()}
        return tuple(requests)


class Entangled:
    """Samples at one distance from the centre of the original model's features (arXiv 2406.01257)."""

    needs: ClassVar[tuple[str, ...]] = ("embedding",)

    def __init__(
        self, *, group: str, size: float | None, num_groups: int, pick: Sequence[int] | None
    ) -> None:
        """Keep the options.

        Args:
            group: "low", "mid", "high" or "mix".
            size: A share of the training set below 1, or a count; None: a whole group.
            num_groups: Into how many groups the training set is cut by distance.
            pick: Which groups are low, mid and high; None: by their entanglement.

        Raises:
            ValueError: If an option is out of range.
        """
        if group not in (*GROUPS, "mix"):
            raise ValueError(f"forget_set.group must be low, mid, high or mix, got {group}")
        if pick is not None and (len(pick) != 3 or not all(0 <= p < num_groups for p in pick)):
            raise ValueError(f"forget_set.pick must be three of {num_groups} groups, got {pick}")
        self.group = group
        self.size = size
        self.num_groups = num_groups
        self.pick = pick
        self.notes: dict[str, Any] = {"kind": "entanglement", "group": group}

    def __call__(self, truth: Truth, *, rate: float, seed: int, embedding: Tensor) -> Requests:
        """Return one request; ``embedding`` (N, E) is the original model's."""
        total = len(embedding)
        size = total // self.num_groups if self.size is None else count_of(self.size, total)
        groups = by_distance(embedding, self.num_groups, size)
        scores = [_entanglement(embedding, g) for g in groups]
        own = picked(scores)
        if self.pick is not None:
            own = {str(g): p for g, p in zip(GROUPS, self.pick, strict=True)}
        self.notes |= {"entanglements": scores, "picked": [own[g] for g in GROUPS]}
        if self.group != "mix":
            return (groups[own[self.group]],)
        each = count_of(size, total, 3) // 3
        return (torch.cat([groups[own[g]][:each] for g in GROUPS]).sort().values,)


def _entanglement(embedding: Tensor, forget: Tensor) -> float:
    retain = torch.ones(len(embedding), dtype=torch.bool)
    retain[forget] = False
    return entanglement_score(embedding, forget, retain.nonzero().flatten())


class FromFile:
    """A user's list: file names or ids, a line each, with true labels where known (CSV, text).

    Or ids in a JSON file: a list, or a list of lists for requests that follow one another.

    Attributes:
        true_label: int64 (N,), -1 where the file says nothing; None if it says nothing at all.
    """

    needs: ClassVar[tuple[str, ...]] = ("names", "class_names")

    def __init__(self, *, path: str) -> None:
        """Keep the path."""
        self.path = Path(path)
        self.notes: dict[str, Any] = {"kind": "file"}
        self.true_label: Tensor | None = None

    def adopt(self, dataset: Dataset) -> Dataset:
        """Return the data set with listed images that were split off for testing back in training."""
        return dataset if is_json(self.path) else adopted(dataset, listed(self.path))

    def __call__(
        self,
        truth: Truth,
        *,
        rate: float,
        seed: int,
        names: Names | None = None,
        class_names: Sequence[str] = (),
    ) -> Requests:
        """Return the requests of the file; ``rate`` and ``seed`` have nothing to act on.

        Args:
            truth: Of the task; only its length counts.
            rate: Unused.
            seed: Unused.
            names: Of the training images; None: ids alone.
            class_names: K names, for true labels.

        Raises:
            ValueError: If it names anything but different training samples; the line is named.
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

    def _from_lines(self, total: int, names: Names | None, class_names: Sequence[str]) -> Requests:
        found = parsed(self.path, names or Names(None, total), class_names)
        if len(found) == total:
            raise ValueError(f"forget_set.path: {self.path} names all {total} training images")
        known = {row: label for row, label in found.items() if label is not None}
        if known:
            self.true_label = torch.full((total,), -1)
            self.true_label[list(known)] = torch.tensor(list(known.values()))
        return (torch.tensor(sorted(found)),)
