"""Forget sets drawn uniformly, from all classes or from a few (IID and non-IID, arXiv 2412.02432).

Differs: drawn by a generator of torch from the run's seed, where the reference code has one list for
all runs; the manifest stores such a list. Shapes: N training samples, n forget samples.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn.core.files import write_text_atomically
from unlearn.data.forget_sets.base import ForgetSet, Requests, hash_indices
from unlearn.data.task import Truth

SEED_OFFSET = 412_002_432
"""Added to the seed, since a corruption with the same seed would draw the same samples."""


def draw_uniform(label: Tensor, count: int, classes: Sequence[int] | None, seed: int) -> Tensor:
    """Return ``count`` rows drawn without replacement, sorted int64 (n,).

    Args:
        label: Class of each sample, (N,).
        count: n.
        classes: Classes to draw from; None: all.
        seed: Of the draw.

    Raises:
        ValueError: If there are too few samples, or none would remain.
    """
    label = label.cpu()
    pool = torch.arange(len(label))
    if classes is not None:
        pool = pool[torch.isin(label, torch.tensor(list(classes)))]
    if not 1 <= count <= len(pool) or count == len(label):
        where = "" if classes is None else f" of classes {list(classes)}"
        raise ValueError(f"the forget set needs {count} of the {len(pool)} samples{where}")
    generator = torch.Generator().manual_seed(seed + SEED_OFFSET)
    return pool[torch.randperm(len(pool), generator=generator)[:count]].sort().values


def write_manifest(path: Path, index: Tensor, facts: Mapping[str, Any]) -> None:
    """Write a forget set and the facts it depends on, by rename.

    ``drawn`` tells it from a set that was changed later: see ``identity.identify_manifest``.
    """
    digest = hash_indices(index)
    content = {**facts, "sha256": digest, "drawn": digest, "index": index.tolist()}
    write_text_atomically(path, json.dumps(content) + "\n")


def read_manifest(path: Path, facts: Mapping[str, Any]) -> Tensor:
    """Return the forget set of a manifest, (n,).

    Raises:
        ValueError: If its indices were changed, or it was made for other facts.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"forget_set.manifest: cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"forget_set.manifest: {path} holds no forget set")
    index = torch.tensor(content.get("index", []), dtype=torch.int64)
    if hash_indices(index) != content.get("sha256"):
        raise ValueError(f"the indices of {path} do not match its sha256")
    other = [key for key, value in facts.items() if content.get(key) != value]
    if other:
        was, now = content.get(other[0]), facts[other[0]]
        raise ValueError(f"{path} was made with {other[0]}={was}, the run has {now}")
    return index


class UniformForgetSet(ForgetSet):
    """A share of the training set, whether or not anything is corrupted."""

    wrong_labels: ClassVar[bool] = False

    def __init__(
        self, *, forget_fraction: float, classes: Sequence[int] | None, manifest: str | None
    ) -> None:
        """Store the options.

        Args:
            forget_fraction: n / N, in (0, 1); n is rounded down.
            classes: Classes to draw from (non-IID); None: all (IID).
            manifest: File of the indices: read and checked if it exists, else written.

        Raises:
            ValueError: If the share is out of range.
        """
        if not 0 < forget_fraction < 1:
            raise ValueError(f"forget_set.forget_fraction must be in (0, 1), got {forget_fraction}")
        self.forget_fraction = forget_fraction
        self.classes = classes
        self.manifest = None if manifest is None else Path(manifest)
        kind = "iid" if classes is None else "non_iid"
        self.notes: dict[str, Any] = {"kind": kind}

    def __call__(self, truth: Truth, *, rate: float, seed: int) -> Requests:
        """Return one request, sorted indices; ``rate`` is unused."""
        label = truth.clean_label
        facts = self.notes | {
            "labels": hash_indices(label),
            "samples": len(label),
            "classes": None if self.classes is None else list(self.classes),
            "forget_fraction": self.forget_fraction,
            "seed": seed,
        }
        if self.manifest is not None and self.manifest.exists():
            return (read_manifest(self.manifest, facts),)
        count = int(self.forget_fraction * len(label) + 1e-9)
        index = draw_uniform(label, count, self.classes, seed)
        if self.manifest is not None:
            write_manifest(self.manifest, index, facts)
        return (index,)


def count_forget(size: float, total: int, multiple: int = 1) -> int:
    """Return how many of ``total`` samples to forget: a share below 1, else a count.

    Args:
        size: Share in (0, 1), rounded to the nearest multiple; or a count.
        total: Number of training samples.
        multiple: The number of equal parts.

    Raises:
        ValueError: If the result is 0, all samples, or not a multiple.
    """
    count = round(size * total / multiple) * multiple if size < 1 else round(size)
    if not 1 <= count < total or count % multiple:
        raise ValueError(
            f"forget_set.size must give 1..{total - 1} of {total} samples"
            f"{f', a multiple of {multiple}' if multiple > 1 else ''}, got {size} (that is {count})"
        )
    return count


class Random(ForgetSet):
    """Samples drawn uniformly."""

    wrong_labels: ClassVar[bool] = False

    def __init__(self, *, size: float, num_requests: int) -> None:
        """Store the options.

        Args:
            size: Size of each request: fraction of the training set (below 1) or count.
            num_requests: Number of successive requests.
        """
        self.size = size
        self.num_requests = num_requests
        self.notes: dict[str, Any] = {"kind": "random"}

    def __call__(self, truth: Truth, *, rate: float, seed: int) -> Requests:
        """Return the requests, sorted indices each; ``rate`` is unused.

        Raises:
            ValueError: If there are not enough samples.
        """
        total = len(truth.clean_label)
        count = count_forget(self.size, total)
        if count * self.num_requests >= total:
            raise ValueError(
                f"forget_set.num_requests={self.num_requests} of {count} samples leave none of "
                f"{total} to retain"
            )
        # A corruption with the same seed would draw the same samples first.
        own = seed + SEED_OFFSET if truth.corrupted.any() else seed
        order = torch.randperm(total, generator=torch.Generator().manual_seed(own))
        parts = order[: count * self.num_requests].split(count)
        return tuple(part.sort().values for part in parts)


class OfClass(ForgetSet):
    """All samples of some classes, or a random subset."""

    wrong_labels: ClassVar[bool] = False

    def __init__(self, *, classes: Sequence[int], size: float | None) -> None:
        """Store the options.

        Args:
            classes: Which classes.
            size: A share of the training set below 1, or a count; None: all of these classes.
        """
        self.classes = tuple(classes)
        self.size = size
        self.notes: dict[str, Any] = {"kind": "class"}

    def __call__(self, truth: Truth, *, rate: float, seed: int) -> Requests:
        """Return one request, sorted indices; ``rate`` is unused.

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
        count = count_forget(self.size, len(label))
        if count > len(rows):
            raise ValueError(
                f"forget_set.size={self.size}: these classes have only {len(rows)} samples"
            )
        return (draw_uniform(label, count, self.classes, seed),)
