"""Which corrupted samples are found, if finding them is simulated: the forget set.

Source: discovery rate of arXiv 2505.17730. Differs: one permutation per seed, so that the samples
found at a low rate are among those found at a higher one; and false alarms, on request.
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
        nested: Use one order for all rates; False draws anew for every rate, as the reference does.
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
        seed: Of the draw; a lower precision keeps the false alarms of a higher one.

    Raises:
        ValueError: If there are too few clean samples.
    """
    clean = (~corrupted.cpu()).nonzero().flatten()
    count = round(len(found) * (1 / precision - 1))
    if count >= len(clean):
        raise ValueError(
            f"discovery_precision={precision} takes {count} clean samples beside {len(found)} found "
            f"ones; there are {len(clean)}, and some must be left to retain"
        )
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed + 7_919))
    return torch.cat([found, clean[order[:count]]]).sort().values
