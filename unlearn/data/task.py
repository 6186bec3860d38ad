"""What is really wrong with the data. The evaluator's knowledge: methods may not import this.

Shapes: N training samples, C H W image, B batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from unlearn.core.types import ImageSet, InputView, Request


class Trigger(Protocol):
    """A pattern that a backdoor answers to."""

    def stamp_trigger(self, image: Tensor) -> Tensor:
        """Return a copy of normalised images (B, C, H, W) with the pattern on every one."""
        ...


@dataclass(frozen=True)
class Truth:
    """What only the evaluator knows of the training set.

    Attributes:
        clean_label: int64 (N,), the right labels.
        corrupted: bool (N,), whether image or label was tampered with.
        trigger: What to stamp on an image to wake a backdoor; None if there is none.
        target_class: The class that the backdoor leads to; None if there is none.
        confused_classes: The classes whose labels were exchanged; empty if none were.
        known_label: int64 (N,), right labels that a user happens to know, -1 elsewhere; None: none.
        clean_view: Turns stored images into input without what the corruption put on them.
    """

    clean_label: Tensor
    corrupted: Tensor
    trigger: Trigger | None = None
    target_class: int | None = None
    confused_classes: tuple[int, ...] = ()
    known_label: Tensor | None = None
    clean_view: InputView | None = None


@dataclass(frozen=True)
class Task:
    """A corrupted training set, the part of the corruption that was found, and the truth.

    Attributes:
        train: The training set as the victim received it; ``index`` is 0..N-1.
        test: Clean test set.
        truth: What is really wrong with ``train``.
        forget: Sorted indices int64 of the discovered samples, one entry per request.
        records: Per-sample values noted in pre-training, (N,) each.
        step: The request that is meant where none is named.
    """

    train: ImageSet
    test: ImageSet
    truth: Truth
    forget: tuple[Tensor, ...]
    records: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0

    @property
    def corrupted_indices(self) -> Tensor:
        """Indices of all corrupted samples, sorted."""
        return self.truth.corrupted.nonzero().flatten()

    def forget_indices(self, step: int | None = None) -> Tensor:
        """Return the sorted indices of request ``step``: the forget set."""
        return self.forget[self.step if step is None else step]

    def requested_indices(self, step: int | None = None) -> Tensor:
        """Return the indices of all requests up to ``step``."""
        return torch.cat(self.forget[: (self.step if step is None else step) + 1])

    def hidden_indices(self, step: int | None = None) -> Tensor:
        """Return the corrupted samples that no request up to ``step`` holds: the hidden ones."""
        hidden = self.truth.corrupted.clone()
        hidden[self.requested_indices(step)] = False
        return hidden.nonzero().flatten()

    def retain_indices(self, step: int | None = None) -> Tensor:
        """Return the indices outside every request up to ``step``: the retain set."""
        keep = torch.ones(len(self.train), dtype=torch.bool)
        keep[self.requested_indices(step)] = False
        return keep.nonzero().flatten()

    def request(self, step: int | None = None, *, oracle: bool = False) -> Request:
        """Return what a method may see at request ``step``.

        An oracle is told more, bool (N,) "oracle/corrupted": its runs are upper bounds, and marked.
        """
        device = self.train.label.device
        data = hide_view(self.train)
        return Request(
            forget=data.rows(self.forget_indices(step).to(device)),
            retain=data.rows(self.retain_indices(step).to(device)),
            records={**self.records, "oracle/corrupted": self.truth.corrupted}
            if oracle
            else self.records,
        )


def hide_view(data: ImageSet) -> ImageSet:
    """Return the data with a bare function as view: the view itself may say what carries a trigger."""
    view = data.view
    return replace(data, view=lambda image, index: view(image, index))
