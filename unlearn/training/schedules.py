"""Learning-rate factors as pure functions of the step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WarmupLinear:
    """Linear warm-up, then linear decay, as in the corrective benchmark (arXiv 2505.17730).

    Attributes:
        warmup_fraction: Share of the steps used for warm-up, in [0, 1).
        stretch: Length of the decay as a share of the steps; 1.25 ends at a factor of about 0.21,
            1 - warmup_fraction at zero.
    """

    warmup_fraction: float
    stretch: float

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction must be in [0, 1), got {self.warmup_fraction}")
        if self.stretch <= 0:
            raise ValueError(f"stretch must be above 0, got {self.stretch}")

    def __call__(self, step: int, total: int) -> float:
        """Return the factor for step 0..total-1."""
        warm = int(self.warmup_fraction * total)
        if step < warm:
            return (step + 1) / (warm + 1)
        return max(0.0, 1 - (step - warm) / (self.stretch * total))


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Constant learning rate."""

    def __call__(self, step: int, total: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Cosine decay from 1 to a floor (arXiv 1608.03983, without restarts).

    Attributes:
        floor: Factor at the end, in [0, 1].
    """

    floor: float

    def __post_init__(self) -> None:
        """Check the floor."""
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must be in [0, 1], got {self.floor}")

    def __call__(self, step: int, total: int) -> float:
        """Return the factor for step 0..total-1."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * step / total)) / 2


@dataclass(frozen=True, kw_only=True)
class Milestones:
    """Constant learning rate that is multiplied by a factor at milestones.

    Attributes:
        milestones: Shares of the steps after which it is multiplied, ascending, in (0, 1).
        factor: The factor, in (0, 1].
    """

    milestones: Sequence[float]
    factor: float

    def __post_init__(self) -> None:
        """Check the options."""
        shares = list(self.milestones)
        if shares != sorted(set(shares)) or not all(0 < share < 1 for share in shares):
            raise ValueError(f"milestones must be ascending numbers in (0, 1), got {shares}")
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor must be in (0, 1], got {self.factor}")

    def __call__(self, step: int, total: int) -> float:
        """Return the factor for step 0..total-1."""
        return self.factor ** sum(step >= share * total for share in self.milestones)


@dataclass(frozen=True, kw_only=True)
class WarmupHoldCosine:
    """Linear warm-up, a constant rate, then cosine decay to zero.

    Attributes:
        warmup_fraction: Share of the steps used for warm-up, in [0, 1).
        hold_fraction: Share of the steps at the full rate.
    """

    warmup_fraction: float
    hold_fraction: float

    def __post_init__(self) -> None:
        """Check the options."""
        if min(self.warmup_fraction, self.hold_fraction) < 0 or (
            self.warmup_fraction + self.hold_fraction > 1
        ):
            raise ValueError(
                "warmup_fraction and hold_fraction must be at least 0 and at most 1 together, got "
                f"{self.warmup_fraction} and {self.hold_fraction}"
            )

    def __call__(self, step: int, total: int) -> float:
        """Return the factor for step 0..total-1."""
        warm = int(self.warmup_fraction * total)
        held = warm + int(self.hold_fraction * total)
        if step < warm:
            return (step + 1) / (warm + 1)
        if step < held:
            return 1.0
        return (1 + math.cos(math.pi * (step - held) / max(1, total - held))) / 2
