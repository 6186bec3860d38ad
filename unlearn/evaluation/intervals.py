"""Confidence intervals of shares and of differences between runs."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

Z = 1.959964  # quantile of a two-sided 95 % interval


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927, doi 10.1080/01621459.1927.10502953).

    Args:
        hits: Successes, 0 to ``total``.
        total: Trials, above 0.
    """
    share, z2 = hits / total, Z * Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_interval(before: Tensor, after: Tensor, z: float = Z) -> tuple[float, float]:
    """Return the interval of the change of a share between two paired measurements.

    Agresti and Min (2005, doi 10.1002/sim.1781): two pairs are added, half a sample to each outcome,
    so that the interval has a positive width if no sample changed.

    Args:
        before: Bool (n,), samples counted before.
        after: Bool (n,), samples counted after.
        z: Quantile of the normal distribution; by default of a two-sided 95 % interval.
    """
    n = len(before) + 2
    rose, fell = ((a & ~b).sum().item() + 0.5 for a, b in ((after, before), (before, after)))
    middle = (rose - fell) / n
    half = z * math.sqrt(rose + fell - (rose - fell) ** 2 / n) / n
    return max(-1.0, middle - half), min(1.0, middle + half)


def confidence_half_width(values: Sequence[float]) -> float:
    """Return half of the 95 % Student-t interval of a mean; NaN for fewer than two values."""
    from scipy import stats  # here, since it takes 36 MB

    n = len(values)
    if n < 2:
        return math.nan
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
