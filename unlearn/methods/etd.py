"""Example-tied dropout: drop the memorizing channels (Maini et al., arXiv 2307.09542). Re-implemented.

The work is done while training (``pretraining=etd``): each sample's peculiarities go to its own share
of the memorizing channels. Dropping them forgets what was memorized; no forget set is needed.
Differs: the other channels are not rescaled (as in REM's benchmark, arXiv 2505.17730).
"""

from typing import ClassVar

from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.components.one_shot import OneShot
from unlearn.models.expansion.expanded import Expanded


class ETD(OneShot):
    """Keep the generalizing channels alone."""

    localizable: ClassVar[bool] = False

    def __init__(self) -> None:
        """Take no options: shares and masks belong to the pre-training."""
        super().__init__(batch_size=1)

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Refuse a network that is not to be trained with example-tied dropout.

        Raises:
            ValueError: If it has no memorizing channels.
        """
        if not isinstance(model, Expanded) or not model.density:
            raise ValueError(
                "etd drops the channels in which example-tied dropout keeps what it memorizes, "
                "but this network was trained without it; choose pretraining=etd"
            )

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the network in drop mode for good; what ``request`` holds does not matter.

        Raises:
            ValueError: If the network was not trained with example-tied dropout.
        """
        self.check_model(model, request.forget.image[:1])
        return super().prepare(model, request)
