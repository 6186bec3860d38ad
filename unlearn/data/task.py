"""The task and its ground truth, for evaluation only: methods must not import this.

Shapes: N training samples, C H W image, B batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from unlearn.core.types import ImageSet, InputView, Request, TrustedRequest


class Trigger(Protocol):
    """The trigger of a backdoor."""

    def stamp_trigger(self, image: Tensor) -> Tensor:
        """Return a copy of normalised images (B, C, H, W) with the pattern on every one."""
        ...


@dataclass(frozen=True)
class Truth:
    """Ground truth of the training set, known only to the evaluator.

    Attributes:
        clean_label: int64 (N,), the right labels.
        corrupted: bool (N,), whether image or label is corrupted.
        trigger: Trigger of the backdoor; None if there is none.
        target_class: Target class of the backdoor; None if there is none.
        confused_classes: Classes whose labels were swapped; may be empty.
        known_label: int64 (N,), true labels given by the user, -1 elsewhere; None: none.
        clean_view: Input view without the trigger.
        all_to_all: Whether a trigger turns each class into the next one, not into one class.
        healed_rows: Sorted indices int64 (n,) on which healed accuracy is measured, where that is not
            the corrupted samples: attacks whose labels are right; None: the corrupted samples.
        healed_view: Input view that puts the trigger on those samples.
    """

    clean_label: Tensor
    corrupted: Tensor
    trigger: Trigger | None = None
    target_class: int | None = None
    confused_classes: tuple[int, ...] = ()
    known_label: Tensor | None = None
    clean_view: InputView | None = None
    all_to_all: bool = False
    healed_rows: Tensor | None = None
    healed_view: InputView | None = None

    def find_targets(self, label: Tensor, num_classes: int) -> Tensor:
        """Return the class that the trigger turns each label int64 (n,) into.

        Raises:
            ValueError: If there is no backdoor.
        """
        if self.all_to_all:
            return (label + 1) % num_classes
        if self.target_class is None:
            raise ValueError("no backdoor")
        return torch.full_like(label, self.target_class)


@dataclass(frozen=True)
class Task:
    """A corrupted training set, its forget set and the ground truth.

    Attributes:
        train: The training set as received; ``index`` is 0..N-1.
        test: Clean test set.
        truth: Ground truth of ``train``.
        forget: Sorted indices int64 of the discovered samples, one entry per request.
        records: Per-sample values recorded in pre-training, (N,) each.
        step: The default request.
        wrong_labels: Whether samples are requested because their labels are wrong.
        trusted: Images known to be right, for methods that need them; None: there are none.
    """

    train: ImageSet
    test: ImageSet
    truth: Truth
    forget: tuple[Tensor, ...]
    records: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0
    wrong_labels: bool = True
    trusted: ImageSet | None = None

    @property
    def corrupted_indices(self) -> Tensor:
        """Sorted indices of all corrupted samples."""
        return self.truth.corrupted.nonzero().flatten()

    def healed_set(self) -> tuple[ImageSet, Tensor]:
        """Return the images that healed accuracy is measured on, and their true labels.

        All corrupted samples as received; other samples with the trigger on if labels are right.
        """
        rows, data = self.truth.healed_rows, self.train
        if rows is None:
            rows = self.corrupted_indices
        elif self.truth.healed_view is not None:
            data = replace(data, view=self.truth.healed_view)
        return data.rows(rows.to(data.label.device)), self.truth.clean_label[rows]

    def forget_indices(self, step: int | None = None) -> Tensor:
        """Return the sorted indices of request ``step``: the forget set."""
        return self.forget[self.step if step is None else step]

    def requested_indices(self, step: int | None = None) -> Tensor:
        """Return the indices of all requests up to ``step``."""
        return torch.cat(self.forget[: (self.step if step is None else step) + 1])

    def hidden_indices(self, step: int | None = None) -> Tensor:
        """Return the hidden samples: corrupted, but in no request up to ``step``."""
        hidden = self.truth.corrupted.clone()
        hidden[self.requested_indices(step)] = False
        return hidden.nonzero().flatten()

    def retain_indices(self, step: int | None = None) -> Tensor:
        """Return the indices outside every request up to ``step``: the retain set."""
        keep = torch.ones(len(self.train), dtype=torch.bool)
        keep[self.requested_indices(step)] = False
        return keep.nonzero().flatten()

    def request(
        self, step: int | None = None, *, oracle: bool = False, trusted: bool = False
    ) -> Request:
        """Return the information that a method gets at request ``step``.

        Args:
            step: Index of the request; None: the default one.
            oracle: Add the record "oracle/corrupted", bool (N,): an upper bound, marked.
            trusted: Add the trusted set, without images of any request up to this one.

        Raises:
            ValueError: If the trusted set is asked for and there is none.
        """
        device = self.train.label.device
        data = hide_view(self.train)
        parts = {
            "forget": data.rows(self.forget_indices(step).to(device)),
            "retain": data.rows(self.retain_indices(step).to(device)),
        }
        records = (
            {**self.records, "oracle/corrupted": self.truth.corrupted} if oracle else self.records
        )
        if not trusted:
            return Request(**parts, records=records, wrong_labels=self.wrong_labels)
        if self.trusted is None:
            raise ValueError("there is no trusted set; choose one, such as trusted=clean_rows")
        named = torch.isin(self.trusted.index.cpu(), self.requested_indices(step).cpu())
        known = hide_view(self.trusted).rows((~named).to(self.trusted.label.device))
        return TrustedRequest(
            **parts, records=records, wrong_labels=self.wrong_labels, trusted=known
        )


def hide_view(data: ImageSet) -> ImageSet:
    """Return the data with a function as view, since the view itself reveals triggered samples."""
    view = data.view
    return replace(data, view=lambda image, index: view(image, index))
