"""Selection of a checkpoint without ground truth.

score: ``HealingScore`` (ours). proxy: accuracy on the retain set * (1 - max(accuracy on the forget
set, threshold)), given labels (the benchmark's, arXiv 2505.17730).
Differs: large retain sets are measured on a sample, since a pass over them can cost several times as
much as the training between two measurements.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from unlearn.core.types import ImageSet, Request
from unlearn.methods.components.floors import Floors, estimate_floors
from unlearn.methods.components.healing_score import HealingScore, build_healing_score
from unlearn.methods.components.samples import select_evenly_spaced

SELECT_MODES = ("score", "proxy", "last")
LARGE_SET = 10_000_000
"""Pixel values (N * C * H * W) from which a set is measured on a sample."""
MEASURED_SHARE = 0.2
"""Measured images of a large set, as a share of the images trained between two measurements."""
MIN_SAMPLES = 256
"""Minimum number of measured images: the standard error of the accuracy is at most 0.03."""


class BestCheckpoint:
    """Keep the weights with the highest value of the criterion, or the last ones."""

    def __init__(
        self,
        request: Request,
        *,
        mode: str,
        threshold: float,
        samples: int | None,
        images_per_pass: int,
        measure: Callable[[nn.Module, ImageSet], float],
    ) -> None:
        """Store the options.

        Args:
            request: Forget and retain set.
            mode: "score", "proxy" or "last".
            threshold: Lower bound of the forget accuracy in the proxy, in [0, 1].
            samples: Number of evenly spaced retain samples to measure on; None: all, or see
                ``limit_measured_samples`` for large sets.
            images_per_pass: Number of images trained between two measurements.
            measure: Returns the accuracy of a network on a set, in [0, 1].

        Raises:
            ValueError: If the mode is unknown.
        """
        if mode not in SELECT_MODES:
            raise ValueError(f"method.select must be one of {', '.join(SELECT_MODES)}, got {mode}")
        self.mode = mode
        self.threshold = threshold
        self.request = request
        if samples is None:
            samples = limit_measured_samples(request.retain, images_per_pass)
        self.retain = select_evenly_spaced(request.retain, samples)
        self.measure = measure
        self.score: HealingScore | None = None
        self.best_value: float = -1.0
        self.epoch = 0
        self.forget_accuracy = 1.0
        self.state: dict[str, Tensor] = {}

    def start(self, original: nn.Module, floors: Floors | None) -> int:
        """Prepare the criterion; return the number of measured images.

        Args:
            original: The original model.
            floors: Of the forget set; None: estimate them if the criterion needs them.
        """
        if self.mode != "score":
            return 0
        images = 0
        if floors is None:
            floors = estimate_floors(original, self.request)
            images = floors.images
        measured = replace(self.request, retain=self.retain)
        self.score = build_healing_score(original, measured, floors)
        return images + len(self.retain)

    def update(self, model: nn.Module, forget_accuracy: float, epoch: int) -> int:
        """Keep the weights after ``epoch`` if they are the best so far; 0 is before training.

        Returns:
            The number of images measured other than by ``measure``.
        """
        if self.mode == "last":
            self.epoch, self.forget_accuracy = epoch, forget_accuracy
            return 0
        value, images = self._measure_value(model, forget_accuracy)
        if value > self.best_value:
            self.best_value = value
            self.keep(model, forget_accuracy, epoch)
        return images

    def keep(self, model: nn.Module, forget_accuracy: float, epoch: int) -> None:
        """Keep the weights after ``epoch``, whatever their value."""
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.epoch, self.forget_accuracy = epoch, forget_accuracy

    def _measure_value(self, model: nn.Module, forget_accuracy: float) -> tuple[float, int]:
        """Return the criterion, or an upper bound that is not above the best, and measured images."""
        forget = len(self.request.forget)
        if self.score is not None:
            highest = self.score.measure_healed(model)
            if highest <= self.best_value:
                return highest, forget
            return self.score.measure_kept(model) * highest, forget + len(self.retain)
        highest = 1 - max(forget_accuracy, self.threshold)  # of a retain accuracy of 1
        if highest <= self.best_value or not highest:
            return highest, 0
        return self.measure(model, self.retain) * highest, 0

    def restore_best_weights(self, model: nn.Module) -> dict[str, float | bool]:
        """Restore the kept weights and return their epoch and convergence for the notes."""
        if self.state:
            model.load_state_dict(self.state)
        converged = self.forget_accuracy <= self.threshold
        return {"selected_epoch": self.epoch, "converged": converged}


def limit_measured_samples(retain: ImageSet, images_per_pass: int) -> int | None:
    """Return the number of retain samples to measure on; None: all, since the set is small.

    Args:
        retain: The retain set.
        images_per_pass: Number of images trained between two measurements.
    """
    if retain.image.numel() < LARGE_SET:
        return None
    return max(MIN_SAMPLES, int(MEASURED_SHARE * images_per_pass))
