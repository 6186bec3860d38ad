"""Simulated discovery: the found corrupted samples are the forget set.

Source: discovery rate of arXiv 2505.17730. Differs: one permutation per seed, so that the samples
found at a low rate are also found at higher rates; and optional false alarms.
Shapes: N training samples, n found.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.data.forget_sets.base import ForgetSet, Requests
from unlearn.data.task import Truth


@dataclass(frozen=True, kw_only=True)
class Discovered(ForgetSet):
    """Find a random share of the corrupted samples.

    Attributes:
        nested: Use one order for all rates; False: draw again for every rate, as in the reference.
    """

    nested: bool

    def __call__(self, truth: Truth, *, rate: float, seed: int) -> Requests:
        """Return one request: sorted indices int64 of round(rate * corrupted) samples.

        Raises:
            ValueError: If nothing is corrupted or the rate finds no sample at all.
        """
        corrupted = truth.corrupted.nonzero().flatten().cpu()
        count = round(rate * len(corrupted))
        if count < 1:
            raise ValueError(
                f"discovery={rate} finds none of the {len(corrupted)} corrupted samples; "
                "raise discovery or corrupted, or choose another corruption"
            )
        generator = torch.Generator().manual_seed(seed if self.nested else seed + 1_000_003 * count)
        order = torch.randperm(len(corrupted), generator=generator)
        return (corrupted[order[:count]].sort().values,)


def add_clean_samples(found: Tensor, corrupted: Tensor, precision: float, seed: int) -> Tensor:
    """Return found samples with clean ones added by chance, sorted indices.

    Args:
        found: Corrupted samples, int64 (n,).
        corrupted: The truth, bool (N,).
        precision: Share of the result that is corrupted, in (0, 1], but for rounding.
        seed: Seed of the draw; a lower precision keeps the false alarms of a higher one.

    Raises:
        ValueError: If there are too few clean samples.
    """
    clean = (~corrupted.cpu()).nonzero().flatten()
    count = round(len(found) * (1 / precision - 1))
    if count >= len(clean):
        raise ValueError(
            f"discovery_precision={precision} needs {count} clean samples besides {len(found)} found "
            f"ones, but there are only {len(clean)}, and some must remain in the retain set"
        )
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed + 7_919))
    return torch.cat([found, clean[order[:count]]]).sort().values
