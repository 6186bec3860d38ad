"""Which corrupted samples are found: the forget set.

Source: discovery rate of arXiv 2505.17730. Differs: one permutation per seed, so that the samples
found at a low rate are among those found at a higher one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.task import Truth


@dataclass(frozen=True, kw_only=True)
class Discovered:
    """Find a random share of the corrupted samples.

    Attributes:
        nested: Use one order for all rates; False draws anew for every rate, as the reference does.
    """

    nested: bool

    def __call__(self, truth: Truth, *, rate: float, seed: int) -> tuple[Tensor, ...]:
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
