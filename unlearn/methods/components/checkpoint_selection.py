"""Choice of a checkpoint from what an unlearner may see (the benchmark's proxy, arXiv 2505.17730).

proxy = accuracy on the retain set * (1 - max(accuracy on the forget set, threshold)), given labels.
"""

import torch
from torch import Tensor, nn

from unlearn.core.types import ImageSet, Request
from unlearn.models.inference import compute_accuracy

SELECT_MODES = ("proxy", "last")


class ProxyCheckpoint:
    """Keeps the weights with the highest proxy, or simply the last ones."""

    def __init__(
        self, request: Request, *, mode: str, threshold: float, samples: int | None
    ) -> None:
        """Remember the request.

        Args:
            request: Forget and retain set.
            mode: "proxy" or "last".
            threshold: Accuracy on the forget set below which less is no better, in [0, 1].
            samples: Size of an evenly spread part of the retain set to measure on; None: all.

        Raises:
            ValueError: If the mode is unknown.
        """
        if mode not in SELECT_MODES:
            raise ValueError(f"method.select must be one of {', '.join(SELECT_MODES)}, got {mode}")
        self.mode = mode
        self.threshold = threshold
        self.forget = request.forget
        self.retain = select_evenly_spaced(request.retain, samples)
        self.best_proxy: float = -1.0
        self.epoch = 0
        self.forget_accuracy = 1.0
        self.state: dict[str, Tensor] = {}

    def update(self, model: nn.Module, forget_accuracy: float, epoch: int) -> None:
        """Keep the weights after ``epoch`` if they are the best so far; 0 is before the first."""
        proxy = self.best_proxy
        if self.mode == "proxy":
            proxy = compute_accuracy(model, self.retain) * (
                1 - max(forget_accuracy, self.threshold)
            )
            if proxy <= self.best_proxy:
                return
            self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.best_proxy, self.epoch, self.forget_accuracy = proxy, epoch, forget_accuracy

    def restore_best_weights(self, model: nn.Module) -> dict[str, float | bool]:
        """Put the kept weights back and return what there is to note of them."""
        if self.state:
            model.load_state_dict(self.state)
        converged = self.forget_accuracy <= self.threshold
        return {"selected_epoch": self.epoch, "converged": converged}


def select_evenly_spaced(data: ImageSet, samples: int | None) -> ImageSet:
    """Return an evenly spread part of the set, or all of it."""
    if samples is None or samples >= len(data):
        return data
    keep = torch.linspace(0, len(data) - 1, samples).round().long()
    return data.rows(keep.to(data.label.device))
