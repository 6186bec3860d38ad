"""Real label noise: given and clean labels of every training image, from a table.

The form is that of human annotations such as CIFAR-10N (arXiv 2110.12088): one line per training
image, in the order of the data set. Shapes: N samples.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import check_choice
from unlearn.data.corruption.base import Corruption, draw_samples, index_to_mask
from unlearn.data.task import Truth

AMOUNTS = ("file", "corrupted")


@dataclass(frozen=True, kw_only=True)
class NoisyLabels(Corruption):
    """Give the samples the labels of a table.

    Attributes:
        path: CSV with a heading; one line per training image, labels as class numbers.
        given: Column of the labels that training sees.
        clean: Column of the right labels, which must be those of the data set.
        amount: "file": all of the table's labels, whatever ``corrupted`` says; "corrupted": as many of
            its wrong labels, drawn at random, and the right ones elsewhere.
    """

    path: str
    given: str
    clean: str
    amount: str

    regularity: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Check the option."""
        check_choice("amount", self.amount, AMOUNTS)

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with the table's labels, or ``count`` of its wrong ones.

        Raises:
            ValueError: If the table does not fit the data; names the line.
        """
        given, right = read_label_columns(Path(self.path), (self.given, self.clean), clean)
        differs = (right != clean.label).nonzero().flatten()
        if len(differs):
            row = int(differs[0])
            raise ValueError(
                f"corruption.path: {self.path}, image {row}: {self.clean} is {int(right[row])}, the "
                f"data set's label is {int(clean.label[row])}; the lines must be in its order"
            )
        wrong = (given != clean.label).nonzero().flatten()
        if self.amount == "corrupted":
            wrong = draw_samples(wrong, count, torch.Generator().manual_seed(seed))
        elif not 0 < len(wrong) < len(clean):
            raise ValueError(
                f"corruption.path: {len(wrong)} of {len(clean)} labels in {self.path} are wrong"
            )
        label = clean.label.clone()
        label[wrong] = given[wrong]
        truth = Truth(clean_label=clean.label, corrupted=index_to_mask(len(clean), wrong))
        return replace(clean, label=label), truth


def read_label_columns(path: Path, columns: tuple[str, str], clean: ImageSet) -> list[Tensor]:
    """Return columns of a table as labels int64 (N,).

    Raises:
        ValueError: If the table cannot be read, lacks a column, has another number of lines than the
            data has images, or a cell is no class; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(text.splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"corruption.path: cannot read {path}: {error}") from error
    absent = [name for name in columns if not rows or name not in rows[0]]
    if absent:
        known = ", ".join(str(name) for name in (rows[0] if rows else ())) or "none"
        raise ValueError(
            f"corruption.path: {path} has no column {absent[0]}; it has {known} "
            "(corruption.given, corruption.clean)"
        )
    if len(rows) != len(clean):
        raise ValueError(
            f"corruption.path: {path} has {len(rows)} lines, the training set has {len(clean)} images"
        )
    out = []
    for name in columns:
        cells = [(row[name] or "").strip() for row in rows]
        for number, cell in enumerate(cells, start=2):
            if not cell.isdecimal() or int(cell) >= clean.num_classes:
                raise ValueError(
                    f"corruption.path: {path}, line {number}: {name} must be a class in "
                    f"0..{clean.num_classes - 1}, got '{cell}'"
                )
        out.append(torch.tensor([int(cell) for cell in cells]))
    return out
