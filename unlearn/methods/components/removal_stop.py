"""When removal stops: at a fixed accuracy, or at the floor of the forget set.

Shapes: B batch, N training samples.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unlearn.core.types import ImageSet, Request
from unlearn.methods.components.floors import Floors, estimate_floors, exceeds_floor

log = logging.getLogger(__name__)

AUTO = "auto"


class RemovalLimits(nn.Module):
    """Removes a sample from the removal loss while its given label is no more probable than its floor."""

    floor: Tensor

    def __init__(self, floor: Tensor) -> None:
        """Store the floors by index, (N,)."""
        super().__init__()
        self.register_buffer("floor", floor)

    def select(self, loss: Tensor, index: Tensor) -> Tensor:
        """Return 1 where a sample is still removed, else 0, (B,).

        Args:
            loss: Cross-entropy of the given labels, (B,).
            index: Indices of the samples, (B,).
        """
        return (torch.exp(-loss.detach()) > self.floor[index]).to(loss.dtype)


class RemovalStop:
    """The accuracy on the forget set's given labels at which its removal stops.

    Attributes:
        accuracy: That accuracy; with "auto" the mean floor, known after ``start``.
        forget_accuracy: The original's.
        nothing: Whether the original does not exceed the floor: it is to be returned.
        floors: With "auto", after ``start``.
    """

    def __init__(
        self,
        gamma: float | str,
        *,
        force: bool = False,
        per_sample: bool = False,
        name: str = "gamma",
    ) -> None:
        """Store the options.

        Args:
            gamma: An accuracy in [0, 1], or "auto".
            force: With "auto": unlearn although nothing exceeds the floor.
            per_sample: With "auto": also stop the removal of each sample at its own floor.
            name: Name of the option in messages.

        Raises:
            ValueError: If ``gamma`` is neither.
        """
        if gamma != AUTO and (isinstance(gamma, str) or not 0 <= gamma <= 1):
            raise ValueError(f"method.{name} must be in [0, 1] or auto, got {gamma}")
        self.automatic = gamma == AUTO
        self.accuracy = 1.0 if isinstance(gamma, str) else gamma
        self.force = force
        self.per_sample = per_sample
        self.forget_accuracy = 1.0
        self.nothing = False
        self.floors: Floors | None = None

    def start(
        self,
        model: nn.Module,
        request: Request,
        measure: Callable[[nn.Module, ImageSet], float],
        notes: dict[str, Any],
    ) -> None:
        """Measure the original, and with "auto" the floor.

        Args:
            model: The original in the form that is unlearned.
            request: Forget and retain set.
            measure: Returns the accuracy of a network on a set, in [0, 1].
            notes: Receive the floor and whether there is nothing to unlearn.
        """
        self.forget_accuracy = measure(model, request.forget)
        if self.automatic:
            self.floors = estimate_floors(model, request)
            self.accuracy = self.floors.mean
            notes["measured_images"] = notes.get("measured_images", 0) + self.floors.images
            self._test(len(request.forget))
            notes |= {"floor": self.accuracy, "nothing_to_unlearn": self.nothing}
        notes["already_forgotten"] = self.nothing or self.is_reached(self.forget_accuracy)

    def _test(self, size: int) -> None:
        count = round(self.forget_accuracy * size)
        if self.force or exceeds_floor(count, size, self.accuracy):
            return
        self.nothing = True
        log.warning(
            "nothing to unlearn: the model gives %d of %d listed images their listed label (%.2f); a "
            "model that never saw them is expected to do so for %.2f; the original model is returned "
            "(method.force=true unlearns all the same)",
            count, size, self.forget_accuracy, self.accuracy,
        )  # fmt: skip

    def is_reached(self, accuracy: float) -> bool:
        """Return whether the accuracy on the given labels has come down to the stop."""
        return accuracy <= self.accuracy

    def make_limits(self, size: int) -> RemovalLimits | None:
        """Return the limits of ``size`` samples by index; None if samples have no own limit."""
        if self.floors is None or not self.per_sample:
            return None
        return RemovalLimits(self.floors.make_table(size))
