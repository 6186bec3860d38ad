"""Base of methods that edit a network once without training."""

from collections.abc import Mapping
from typing import NoReturn

from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod


class OneShot(UnlearningMethod):
    """Base class of one-shot methods; ``edit_model`` does all the work, ``fit`` is not called."""

    def __init__(self, *, batch_size: int) -> None:
        """Store the number of images per forward pass.

        Raises:
            ValueError: If ``batch_size`` is below 1.
        """
        super().__init__(
            epochs=0,
            batch_size=batch_size,
            optimizer=_refuse_training,
            schedule=lambda step, total: 1.0,
        )

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the edited network, without extra channels."""
        return self.edit_model(super().prepare(model, request), request)

    def edit_model(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the unlearned network; by default unchanged."""
        return model

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Raise an error: one-shot methods have no loss."""
        return _refuse_training()


def _refuse_training(*_: object) -> NoReturn:
    raise AssertionError("a one-shot method is not trained")
