"""Base of methods that repair a model with a trusted set: images whose labels are known to be right.

Shapes: B batch.
"""

from typing import Any, ClassVar

from torch import nn

from unlearn.core.types import ImageSet, Request, TrustedRequest
from unlearn.methods.base import UnlearningMethod


class TrustedMethod(UnlearningMethod):
    """Base class of methods that train on the trusted set alone.

    Thresholds use a part of it that is not trained on. Neither test data nor the success of an attack
    affects any choice.

    Attributes:
        fit_set: Trusted images to train on; set by ``prepare``.
        validation: Trusted images to validate on; the same if there are too few.
    """

    budget_pass: ClassVar[str] = "trusted"
    uses_forget_set: ClassVar[bool] = False
    uses_retain_set: ClassVar[bool] = False
    needs_trusted: bool = True
    fit_set: ImageSet
    validation: ImageSet

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Split the trusted set; return the model."""
        self.fit_set, self.validation = split_trusted(request, self.notes)
        return super().prepare(model, request)


def split_trusted(request: Request, notes: dict[str, Any]) -> tuple[ImageSet, ImageSet]:
    """Return the trusted images to train on and those to validate on; note whether they differ.

    Raises:
        ValueError: If the request has no trusted set.
    """
    if not isinstance(request, TrustedRequest):
        raise ValueError("a trusted set is needed: trusted=clean_rows, or your own images")
    if len(request.trusted) < 2:
        raise ValueError(f"the trusted set must hold at least 2 images, got {len(request.trusted)}")
    fit, validation, apart = request.split_trusted()
    notes |= {"trusted_images": len(fit), "validation_images": len(validation)}
    if not apart:
        notes["no_validation"] = True  # too few images: all are used for both
    return fit, validation
