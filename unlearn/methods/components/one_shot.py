"""What methods share that edit a network once and train nothing."""

from collections.abc import Mapping
from typing import NoReturn

from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod


class OneShot(UnlearningMethod):
    """Base of one-shot methods: ``edit`` is all there is; the ``Fit`` is never called."""

    def __init__(self, *, batch_size: int) -> None:
        """Keep the number of images that are looked at together.

        Raises:
            ValueError: If it is below 1.
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
        """Return the unlearned network; default: as it is."""
        return model

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Refuse: there is no training, so there is no loss."""
        return _refuse_training()


def _refuse_training(*_: object) -> NoReturn:
    raise AssertionError("a one-shot method is not trained")
