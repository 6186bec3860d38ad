"""Forget sets drawn uniformly, from all classes or from a few (IID and non-IID, arXiv 2412.02432).

Differs: drawn by a generator of torch from the run's seed, where the reference code has one list for
all runs; the manifest keeps such a list. Shapes: N training samples, n forget samples.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn.task import Truth

OWN = 412_002_432
"""Added to the seed: a corruption draws by the same seed, and would meet the same samples."""


def drawn(label: Tensor, count: int, classes: Sequence[int] | None, seed: int) -> Tensor:
    """Return ``count`` rows drawn without replacement, sorted int64 (n,).

    Args:
        label: Class of each sample, (N,).
        count: n.
        classes: Draw from these alone; None: from all.
        seed: Of the draw.

    Raises:
        ValueError: If there are too few samples, or none would be left.
    """
    label = label.cpu()
    pool = torch.arange(len(label))
    if classes is not None:
        pool = pool[torch.isin(label, torch.tensor(list(classes)))]
    if not 1 <= count <= len(pool) or count == len(label):
        where = "" if classes is None else f" of classes {list(classes)}"
        raise ValueError(f"the forget set needs {count} of the {len(pool)} samples{where}")
    generator = torch.Generator().manual_seed(seed + OWN)
    return pool[torch.randperm(len(pool), generator=generator)[:count]].sort().values


def digest(index: Tensor) -> str:
    """Return the SHA-256 of a list of indices."""
    return hashlib.sha256(index.to(torch.int64).cpu().numpy().tobytes()).hexdigest()


def write_manifest(path: Path, index: Tensor, facts: Mapping[str, Any]) -> None:
    """Write a forget set with what it was made from, by rename."""
    content = {**facts, "sha256": digest(index), "index": index.tolist()}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps(content) + "\n")
    os.replace(part, path)


def read_manifest(path: Path, facts: Mapping[str, Any]) -> Tensor:
    """Return the forget set of a manifest, (n,).

    Raises:
        ValueError: If its indices are not those that were written, or it was made for other facts.
    """
    content = json.loads(path.read_text())
    index = torch.tensor(content.get("index", []), dtype=torch.int64)
    if digest(index) != content.get("sha256"):
        raise ValueError(f"the indices of {path} are not those that its sha256 stands for")
    other = [key for key, value in facts.items() if content.get(key) != value]
    if other:
        was, now = content.get(other[0]), facts[other[0]]
        raise ValueError(f"{path} was made with {other[0]}={was}, the run has {now}")
    return index


class UniformForgetSet:
    """A share of the training set, whether or not anything is corrupted."""

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, *, forget_fraction: float, classes: Sequence[int] | None, manifest: str | None
    ) -> None:
        """Keep the options.

        Args:
            forget_fraction: n / N, in (0, 1); rounded down.
            classes: Forget samples of these classes alone (non-IID); None: of all (IID).
            manifest: File that keeps the set: read and checked if it is there, else written.

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

    def __call__(self, truth: Truth, *, rate: float, seed: int) -> tuple[Tensor, ...]:
        """Return one request, sorted indices; ``rate`` has nothing to act on."""
        label = truth.clean_label
        facts = self.notes | {
            "labels": digest(label),
            "samples": len(label),
            "classes": None if self.classes is None else list(self.classes),
            "forget_fraction": self.forget_fraction,
            "seed": seed,
        }
        if self.manifest is not None and self.manifest.exists():
            return (read_manifest(self.manifest, facts),)
        count = int(self.forget_fraction * len(label) + 1e-9)
        index = drawn(label, count, self.classes, seed)
        if self.manifest is not None:
            write_manifest(self.manifest, index, facts)
        return (index,)
