"""Mask of a localization: the entries of a network's parameters that are trained.

Computed once by a strategy and saved bit-packed. Budgets are those of arXiv 2412.02432.
Shapes: a mask has the shape of its parameter; P all parameters.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlearn.core.verified_files import BrokenFileError, check_file, write_verified
from unlearn.models.layers import get_trainable_parameters


def count_allowed_parameters(total: int, budget: float) -> int:
    """Return floor(budget * total), the maximum number of trained parameters.

    Args:
        total: P.
        budget: In (0, 1]; its decimal representation is used, so that 0.29 of 100 is 29, not 28.

    Raises:
        ValueError: If the budget is out of range.
    """
    if not 0 < budget <= 1:
        raise ValueError(f"budget must be in (0, 1], got {budget}")
    return int(Fraction(str(budget)) * total)


def fingerprint_model(model: nn.Module) -> str:
    """Return a hash of a network's parameter names, shapes and values, 16 hex digits."""
    digest = hashlib.sha256()
    for name, p in model.named_parameters():
        digest.update(f"{name}{tuple(p.shape)}".encode())
        digest.update(p.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Mask(Mapping[str, Tensor]):
    """Bool tensor by parameter name, True for trained entries.

    Attributes:
        may_move: The tensors, in the network's order.
        facts: Provenance: strategy, budget, fingerprints, seconds; JSON-serialisable.
    """

    may_move: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the dtypes.

        Raises:
            ValueError: If a tensor is not bool, or there are no tensors.
        """
        wrong = [name for name, m in self.may_move.items() if m.dtype != torch.bool]
        if wrong or not self.may_move:
            raise ValueError(f"a mask needs bool tensors, got {wrong or 'none'}")

    def __getitem__(self, name: str) -> Tensor:
        """Return the mask of one parameter."""
        return self.may_move[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names in the network's order."""
        return iter(self.may_move)

    def __len__(self) -> int:
        """Return the number of parameter tensors."""
        return len(self.may_move)

    def count_movable_by_parameter(self) -> dict[str, int]:
        """Return the number of trained entries of each parameter."""
        return {name: int(m.sum()) for name, m in self.items()}

    def count_movable(self) -> int:
        """Return the number of trained entries."""
        return sum(self.count_movable_by_parameter().values())

    def count_total(self) -> int:
        """Return P, the number of all entries."""
        return sum(m.numel() for m in self.values())

    def compute_movable_share(self) -> float:
        """Return the share of trained entries, in [0, 1]."""
        return self.count_movable() / self.count_total()

    def compute_group_shares(self, groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """Return the share of trained entries per group, for parameter names by group."""
        counts = self.count_movable_by_parameter()
        return {
            title: sum(counts[n] for n in names) / sum(self[n].numel() for n in names)
            for title, names in groups.items()
        }

    def check_matches_model(self, model: nn.Module) -> None:
        """Check that the mask matches the network.

        Raises:
            ValueError: If names or shapes differ.
        """
        own = {name: tuple(m.shape) for name, m in self.items()}
        theirs = {name: tuple(p.shape) for name, p in get_trainable_parameters(model).items()}
        if own != theirs:
            odd = sorted(n for n in own.keys() | theirs.keys() if own.get(n) != theirs.get(n))[0]
            raise ValueError(
                f"the mask does not fit {type(model).__name__}: '{odd}' is {own.get(odd)} in the "
                f"mask and {theirs.get(odd)} in the network"
            )

    def require_within_budget(self, budget: float) -> "Mask":
        """Return the mask itself if it is not empty and within the budget.

        Raises:
            ValueError: If it is empty or exceeds the budget.
        """
        limit, count = count_allowed_parameters(self.count_total(), budget), self.count_movable()
        if not 0 < count <= limit:
            raise ValueError(
                f"budget={budget} allows at most {limit} of {self.count_total()} parameters and at "
                f"least 1, but the localization chose {count}; increase the budget"
            )
        return self

    def union(self, other: "Mask") -> "Mask":
        """Return the union of both masks."""
        return Mask({n: m | other[n] for n, m in self._get_comparable_items(other)})

    def intersection(self, other: "Mask") -> "Mask":
        """Return the intersection of both masks."""
        return Mask({n: m & other[n] for n, m in self._get_comparable_items(other)})

    def complement(self) -> "Mask":
        """Return the complement of the mask."""
        return Mask({n: ~m for n, m in self.items()})

    def compute_jaccard_overlap(self, other: "Mask") -> dict[str, float]:
        """Return the Jaccard overlap by parameter, and over all under ""; 1 if both are empty."""
        both, either = (
            self.intersection(other).count_movable_by_parameter(),
            self.union(other).count_movable_by_parameter(),
        )
        both[""], either[""] = sum(both.values()), sum(either.values())
        return {n: both[n] / either[n] if either[n] else 1.0 for n in both}

    def _get_comparable_items(self, other: "Mask") -> list[tuple[str, Tensor]]:
        if {n: m.shape for n, m in self.items()} != {n: m.shape for n, m in other.items()}:
            raise ValueError("the two masks belong to different networks")
        return list(self.items())

    def save(self, path: Path) -> None:
        """Save the mask atomically, one bit per entry, sealed."""
        content = {
            "shape": {n: list(m.shape) for n, m in self.items()},
            "bits": {n: _pack_bits(m.cpu()) for n, m in self.items()},
            "facts": dict(self.facts),
        }
        write_verified(path, lambda part: torch.save(content, part))

    @classmethod
    def load(cls, path: Path) -> "Mask":
        """Return a saved mask.

        Raises:
            ValueError: If the file holds no mask, or is broken.
        """
        try:
            check_file(path)
            content = torch.load(path, weights_only=True)
        except BrokenFileError as error:
            raise ValueError(f"{path} is broken: {error}") from error
        except Exception as error:  # the type depends on the content of the file
            raise ValueError(f"{path} holds no mask: {type(error).__name__}") from error
        if not isinstance(content, dict) or content.keys() != {"shape", "bits", "facts"}:
            raise ValueError(f"{path} holds no mask")
        shapes: dict[str, list[int]] = content["shape"]
        bits: dict[str, Tensor] = content["bits"]
        return cls({n: _unpack_bits(bits[n], s) for n, s in shapes.items()}, content["facts"])


_BIT_VALUES = 2 ** torch.arange(8)


def _pack_bits(mask: Tensor) -> Tensor:
    flat = mask.flatten()
    padded = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).view(-1, 8)
    return (padded * _BIT_VALUES).sum(1).to(torch.uint8)


def _unpack_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    flat = (bits.long()[:, None] & _BIT_VALUES).bool().flatten()
    return flat[: int(torch.Size(shape).numel())].view(tuple(shape)).clone()
