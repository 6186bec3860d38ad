"""The original model, untouched: the point where every method starts."""

from collections.abc import Mapping
from typing import NoReturn

from torch import Tensor
from torch.nn import functional as F

from unlearn.core import Batch, Forward
from unlearn.methods.base import UnlearningMethod


class Original(UnlearningMethod):
    """Do nothing. For a network trained with example-tied dropout this drops the memorizing part."""

    def __init__(self) -> None:
        """Take no options."""
        super().__init__(epochs=0, batch_size=1, optimizer=_none, schedule=lambda step, total: 1.0)

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the cross-entropy; never minimised."""
        return F.cross_entropy(forward(batch["retain"].image), batch["retain"].label)


def _none(*_: object) -> NoReturn:
    raise AssertionError("the original model is not trained")
