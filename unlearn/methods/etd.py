"""Example-tied dropout: drop the memorizing channels (Maini et al., arXiv 2307.09542). Re-implemented.

In pre-training (``pretraining=etd``) each sample trains its own subset of the memorizing channels.
Dropping these channels removes what was memorized; no forget set is needed. Differs: the other
channels are not rescaled (as in REM's benchmark, arXiv 2505.17730).
"""

from typing import ClassVar

from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.components.one_shot import OneShot
from unlearn.models.expansion.expanded import Expanded


class ETD(OneShot):
    """Keep only the generalizing channels."""

    localizable: ClassVar[bool] = False
    uses_forget_set: ClassVar[bool] = False
    uses_retain_set: ClassVar[bool] = False

    def __init__(self) -> None:
        """Initialise without options: shares and masks are set by the pre-training."""
        super().__init__(batch_size=1)

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Check that the network is trained with example-tied dropout; its channels may be dropped.

        Raises:
            ValueError: If it has no memorizing channels.
        """
        dropped = getattr(model, "memorizing_channels_dropped", False)
        if not dropped and (not isinstance(model, Expanded) or not model.density):
            raise ValueError(
                "method=etd drops the memorizing channels of example-tied dropout, but this "
                "network was trained without them; choose pretraining=etd"
            )

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the network without memorizing channels; the contents of ``request`` are unused.

        Raises:
            ValueError: If the network was not trained with example-tied dropout.
        """
        self.check_model(model, request.forget.image[:1])
        model = super().prepare(model, request)
        model.memorizing_channels_dropped = True  # type: ignore[assignment]  # for later requests
        return model
