"""Trusted set of a simulated audit: drawn images are judged, and bad ones join the forget set.

Ours. Shapes: N training samples.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.datasets.base import Dataset
from unlearn.data.task import Truth
from unlearn.data.trusted_sets.base import (
    DrawOptions,
    TrustedDraw,
    TrustedSource,
    list_retained,
)

SEES = ("label", "any")


@dataclass(frozen=True, kw_only=True)
class Audit(DrawOptions, TrustedSource):
    """Draw from the retain set without knowledge of the truth, then judge each drawn image.

    Good images are the trusted set; bad ones join the forget set of every method of the cell, since
    whoever pays for an audit uses what it finds.

    Attributes:
        sees: What an auditor notices: "label", a wrong label; "any", also a trigger on an image whose
            label is right. An overlooked image stays in the trusted set, trigger included.
    """

    source: ClassVar[str] = "audit"
    sees: str

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: If one is out of range.
        """
        super().__post_init__()
        if self.sees not in SEES:
            raise ValueError(f"trusted.sees must be one of {', '.join(SEES)}, got {self.sees}")

    def __call__(
        self,
        train: ImageSet,
        truth: Truth,
        forget: Tensor,
        *,
        dataset: Dataset,
        held_out: ImageSet | None,
    ) -> TrustedDraw:
        """Return the trusted set and what was found; see ``TrustedSource``."""
        drawn = self.draw_rows(list_retained(len(train), forget), train.label)
        wrong = train.label.cpu() != truth.clean_label.cpu()
        bad = truth.corrupted.cpu() if self.sees == "any" else wrong
        found, kept = drawn[bad[drawn]], drawn[~bad[drawn]]
        if not len(kept):
            raise ValueError(
                f"trusted=audit: all {len(drawn)} drawn images are bad; raise trusted.size"
            )
        received = train.rows(kept.to(train.label.device))
        notes = {"audit/size": len(drawn), "audit/found": len(found)}
        return TrustedDraw(received, found, notes)
