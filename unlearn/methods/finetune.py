"""Fine-tuning on the retain set, also called catastrophic forgetting, CF (arXiv 2402.14015). Re-implemented."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward
from unlearn.methods.base import UnlearningMethod


class Finetune(UnlearningMethod):
    """Continue training on the retain set."""

    stackable = True
    mean_loss = True
    full_precision: ClassVar[bool] = False

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean cross-entropy on the retain batch."""
        retain = batch["retain"]
        return F.cross_entropy(forward(retain.image), retain.label)
