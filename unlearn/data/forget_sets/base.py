"""Base class of forget sets: how requests are chosen, and which inputs that needs.

Shapes: N training samples, n forget samples.
"""

import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn.data.datasets.base import Dataset

Requests = tuple[Tensor, ...]
"""Sorted indices int64 (n,) of each request; several: sequential unlearning."""


class ForgetSet(ABC):
    """Base class of forget sets.

    Attributes:
        needs: Keyword arguments that ``__call__`` takes besides rate and seed: "embedding", "score",
            "center", "names" or "class_names".
        notes: Facts for the row, set by ``__call__``; columns ``forget_set/<key>``.
        shared_requests: Choose all requests before the first step; False: ``choose_next`` chooses
            each by the scores of the current model.
        num_requests: Number of requests, 1 or more.
        wrong_labels: Whether samples are listed because their labels are wrong.
        true_label: int64 (N,), -1 where unknown, from a user's list; None if it names none.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    notes: dict[str, Any] = {}
    shared_requests: bool = True
    num_requests: int = 1
    wrong_labels: ClassVar[bool] = True
    true_label: Tensor | None = None

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Requests:
        """Return the requests; called with ``(truth, rate=, seed=)`` and the inputs in ``needs``.

        Args:
            args: ``truth``: the true labels and which samples are corrupted.
            kwargs: ``rate``: discovery rate in (0, 1]; ``seed``: of the draw; inputs in ``needs``.
        """

    def restore_listed(self, dataset: Dataset) -> Dataset:
        """Return the data set with listed test images moved back to the training set."""
        return dataset

    def choose_next(self, score: Tensor, center: str | float, gone: Tensor) -> Tensor:
        """Return one more request, sorted indices int64 (n,).

        Args:
            score: Memorization score of every sample by the current model, (N,).
            center: Center of the score's medium group.
            gone: Indices of earlier requests.

        Raises:
            TypeError: If all requests are chosen at once.
        """
        raise TypeError(f"{type(self).__name__} chooses all requests at once")


def hash_indices(index: Tensor) -> str:
    """Return the SHA-256 of a list of indices."""
    return hashlib.sha256(index.to(torch.int64).cpu().numpy().tobytes()).hexdigest()
