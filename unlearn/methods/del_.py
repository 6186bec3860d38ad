"""DEL: reset the channels most important for the forget set, then fine-tune (arXiv 2412.02432).

Re-implemented: RFT on the output channels with the largest weighted gradients on the forget set.
The file is not called ``del``, which is a Python keyword.
"""

from collections.abc import Sequence
from typing import Any

from unlearn.methods.localization.base import Localizer
from unlearn.methods.localized import Localized
from unlearn.methods.rft import RFT


class DEL(Localized):
    """RFT with a localization."""

    def __init__(
        self,
        *,
        localizer: Localizer,
        budget: float | None,
        usual_budget: float,
        batch_norm: str | None,
        head: str | None,
        trainable: Sequence[str] | None,
        **reset: Any,
    ) -> None:
        """Combine the parts.

        Args:
            localizer: Selects the channels.
            budget: Share of all parameters, in (0, 1]; None: ``usual_budget``.
            usual_budget: Budget of the paper.
            batch_norm: See ``Localized``; None: "update".
            head: See ``Localized``; None: "always".
            trainable: See ``Localized``.
            reset: See ``RFT``.
        """
        super().__init__(
            RFT(**reset),
            localizer=localizer,
            budget=usual_budget if budget is None else budget,
            batch_norm=batch_norm or "update",
            head=head,
            trainable=trainable,
        )
