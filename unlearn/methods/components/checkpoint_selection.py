"""Selection of a checkpoint without ground truth (the benchmark's proxy, arXiv 2505.17730).

proxy = accuracy on the retain set * (1 - max(accuracy on the forget set, threshold)), given labels.
Differs: large retain sets are measured on a sample, since a pass over them can cost several times as
much as the training between two measurements.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlearn.core.types import ImageSet, Request

SELECT_MODES = ("proxy", "last")
LARGE_SET = 10_000_000
"""Pixel values (N * C * H * W) from which a set is measured on a sample."""
MEASURED_SHARE = 0.2
"""Measured images of a large set, as a share of the images trained between two measurements."""
MIN_SAMPLES = 256
"""Minimum number of measured images: the standard error of the accuracy is at most 0.03."""


class ProxyCheckpoint:
    """Keep the weights with the highest proxy, or the last ones."""

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
            mode: "proxy" or "last".
            threshold: Lower bound of the forget accuracy in the proxy, in [0, 1].
            samples: Number of evenly spaced retain samples to measure on; None: all, or see
                ``limit_proxy_samples`` for large sets.
            images_per_pass: Number of images trained between two measurements.
            measure: Returns the accuracy of a network on a set, in [0, 1].

        Raises:
            ValueError: If the mode is unknown.
        """
        if mode not in SELECT_MODES:
            raise ValueError(f"method.select must be one of {', '.join(SELECT_MODES)}, got {mode}")
        self.mode = mode
        self.threshold = threshold
        self.forget = request.forget
        if samples is None:
            samples = limit_proxy_samples(request.retain, images_per_pass)
        self.retain = select_evenly_spaced(request.retain, samples)
        self.measure = measure
        self.best_proxy: float = -1.0
        self.epoch = 0
        self.forget_accuracy = 1.0
        self.state: dict[str, Tensor] = {}

    def update(self, model: nn.Module, forget_accuracy: float, epoch: int) -> None:
        """Keep the weights after ``epoch`` if they are the best so far; 0 is before training."""
        proxy = self.best_proxy
        if self.mode == "proxy":
            highest = 1 - max(forget_accuracy, self.threshold)  # of a retain accuracy of 1
            if highest <= self.best_proxy:
                return
            proxy = self.measure(model, self.retain) * highest if highest else 0.0
            if proxy <= self.best_proxy:
                return
            self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.best_proxy, self.epoch, self.forget_accuracy = proxy, epoch, forget_accuracy

    def restore_best_weights(self, model: nn.Module) -> dict[str, float | bool]:
        """Restore the kept weights and return their epoch and convergence for the notes."""
        if self.state:
            model.load_state_dict(self.state)
        converged = self.forget_accuracy <= self.threshold
        return {"selected_epoch": self.epoch, "converged": converged}


def limit_proxy_samples(retain: ImageSet, images_per_pass: int) -> int | None:
    """Return the number of retain samples to measure on; None: all, since the set is small.

    Args:
        retain: The retain set.
        images_per_pass: Number of images trained between two measurements.
    """
    if retain.image.numel() < LARGE_SET:
        return None
    return max(MIN_SAMPLES, int(MEASURED_SHARE * images_per_pass))


def select_evenly_spaced(data: ImageSet, samples: int | None) -> ImageSet:
    """Return ``samples`` evenly spaced samples of the set; None: the whole set."""
    if samples is None or samples >= len(data):
        return data
    keep = torch.linspace(0, len(data) - 1, samples).round().long()
    return data.rows(keep.to(data.label.device))
