"""Fine-tuning on a trusted set: the baseline of all repairs with trusted data. Re-implemented.

As run in BackdoorBench (arXiv 2206.12654). Shapes: B batch.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward
from unlearn.methods.components.trusted_training import TrustedMethod


class FtTrusted(TrustedMethod):
    """Continue training on the trusted set."""

    stackable = True
    full_precision: ClassVar[bool] = False

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean cross-entropy on the trusted batch."""
        trusted = batch["trusted"]
        return F.cross_entropy(forward(trusted.image), trusted.label)
