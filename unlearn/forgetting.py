"""Forget sets of samples that nobody corrupted: at random, by class, by score, by entanglement.

Sources: arXiv 2406.01257, 2410.16516. What a builder needs beyond the data it names in ``needs``.
Shapes: N samples, E embedding.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn.forget_file import FromFile as FromFile  # where configs look for it
from unlearn.forget_sets import OWN, drawn
from unlearn.grading import GROUPS, by_distance, center_of, entanglement_score, graded, picked
from unlearn.task import Truth

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
        # A corruption draws by the same seed, and would meet the same samples first.
        own = seed + OWN if truth.corrupted.any() else seed
        order = torch.randperm(total, generator=torch.Generator().manual_seed(own))
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
        shared_requests: bool,
    ) -> None:
        """Keep the options.

        Args:
            group: "low", "mid", "high" or "mix".
            size: Of each request: a share of the training set below 1, or a count.
            center: Of the medium group: "median", "midrange", a number; None: the score's own.
            tie_seed: Of the order that breaks ties.
            num_requests: How many requests follow one another, each from what those before left.
            shared_requests: All by the score of the original, the same for all methods; False: each
                by the score of the model that answered the one before (arXiv 2410.16516).

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
        self.shared_requests = shared_requests
        self.notes: dict[str, Any] = {"kind": "graded", "group": group}
        if not shared_requests:
            self.notes["kind"] = "graded anew"

    def __call__(
        self, truth: Truth, *, rate: float, seed: int, score: Tensor, center: str | float
    ) -> Requests:
        """Return the requests, or the first if scores are taken anew for each that follows.

        Args:
            truth: Of the task; only its length counts.
            rate: Unused.
            seed: Unused.
            score: Larger is more memorized, (N,).
            center: The score's own centre.

        Raises:
            ValueError: If nothing is left to retain.
        """
        count = count_of(self.size, len(score), self._parts())
        if count * self.num_requests >= len(score):
            raise ValueError(
                f"forget_set.num_requests={self.num_requests} of {count} samples leave none of "
                f"{len(score)} to retain"
            )
        requests: list[Tensor] = []
        self.notes["displaced"] = 0
        for _ in range(self.num_requests if self.shared_requests else 1):
            gone = torch.cat(requests) if requests else torch.tensor([], dtype=torch.long)
            requests.append(self.following(score, center, gone))
        self.notes["score_mean"] = score[requests[0]].mean().item()
        return tuple(requests)

    def _parts(self) -> int:
        return len(GROUPS) if self.group == "mix" else 1

    def following(self, score: Tensor, center: str | float, gone: Tensor) -> Tensor:
        """Return one request from what is left, sorted indices.

        Args:
            score: Larger is more memorized, (N,).
            center: The score's own centre.
            gone: Indices of what was asked for before.
        """
        parts = self._parts()
        each = count_of(self.size, len(score), parts) // parts
        sizes = dict.fromkeys(GROUPS if parts > 1 else (self.group,), each)
        pool = torch.arange(len(score))
        pool = pool[~torch.isin(pool, gone.cpu())]
        values = score[pool].cpu()
        middle = center_of(values, center if self.center is None else self.center)
        groups, lost = graded(values, sizes, middle, self.tie_seed)
        self.notes["displaced"] = lost + self.notes.get("displaced", 0)
        return pool[torch.cat(list(groups.values()))].sort().values


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
