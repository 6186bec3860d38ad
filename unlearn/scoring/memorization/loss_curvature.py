"""Loss curvature at each sample, averaged over training (Garg, Ravikumar, Roy, ICML 2024).

Re-implemented from the description. Shapes: N samples, B batch, C H W image.
"""

import time
from collections.abc import Callable
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.nn import functional as F

from unlearn.core.types import Batch
from unlearn.models.surgery import eval_mode
from unlearn.scoring.base import MeanRecorder, Recorder, Score, ScoringInputs


def compute_curvature(
    forward: Callable[[Tensor], Tensor], image: Tensor, label: Tensor, h: float
) -> Tensor:
    """Return |grad l(x + z) - grad l(x)| per sample, z of length h along the sign of the gradient.

    Args:
        forward: Image (B, C, H, W) to logits.
        image: Normalised images.
        label: Labels, (B,).
        h: Euclidean length of the step in pixel space.

    Returns:
        Norm over the pixels, (B,); 0 where the loss is linear in the image.
    """

    def input_gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_(True)
        loss = F.cross_entropy(forward(x).float(), label, reduction="sum")
        return torch.autograd.grad(loss, x)[0]

    with torch.enable_grad():
        here = input_gradient(image)
        sign = here.sign()
        norm = sign.flatten(1).norm(dim=1).view(-1, *[1] * (image.ndim - 1))
        step = h * (sign + 1e-7) / (norm + 1e-7)
        return (input_gradient(image + step) - here).flatten(1).norm(dim=1).detach()


class CurvatureRecorder(MeanRecorder):
    """Record the mean curvature at every sample, before the step, in eval mode."""

    name: ClassVar[str] = "curvature"

    def __init__(self, *, h: float, every: int) -> None:
        """Store the options.

        Args:
            h: Length of the step, above 0.
            every: Record every this many epochs, starting with the first.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__()
        if h <= 0 or every < 1:
            raise ValueError(
                f"score.h must be above 0 and score.every at least 1, got {h}, {every}"
            )
        self.h = h
        self.every = every

    def get_options(self) -> dict[str, Any]:
        """Return the name and the options."""
        return {"name": self.name, "h": self.h, "every": self.every}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Record the curvature of the batch before the training step."""
        if trainer.current_epoch % self.every:
            return
        started = time.perf_counter()
        model: Any = pl_module.model
        masked = getattr(pl_module, "masked", False)
        with eval_mode(model):
            found = compute_curvature(
                lambda x: model(x, *((batch.index,) if masked else ())),
                batch.image,
                batch.label,
                self.h,
            )
        self.add_values(found, batch.index)
        self.seconds += time.perf_counter() - started

    def get_records(self) -> dict[str, Tensor]:
        """Return the mean curvature per sample."""
        return {"curvature": self.compute_means()}


class LossCurvature(Score):
    """Mean curvature of the loss at a sample over training."""

    def __init__(self, *, h: float, every: int) -> None:
        """Store the options of ``CurvatureRecorder``."""
        super().__init__()
        self.options = {"h": h, "every": every}

    def make_recorder(self) -> Recorder:
        """Return the callback that records the curvature."""
        return CurvatureRecorder(**self.options)  # type: ignore[arg-type]

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the recorded mean, (N,)."""
        return subject.records["curvature"]
