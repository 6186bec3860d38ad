"""ANP: prune batch-norm channels that adversarial perturbations of the weights make harmful.

Wu and Wang, arXiv 2110.14430. Re-implemented. Differs: perturbations are projected to their bound;
the threshold is fixed or follows validation images, never test data.
Shapes: B batch, C channels of a layer.
"""

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.components.norm_pruning import NormPruning


class ANP(NormPruning):
    """Learn masks under which perturbed scales and shifts still classify, then prune small ones."""

    def __init__(
        self, *, iterations: int, epsilon: float, alpha: float, project: bool, **options: Any
    ) -> None:
        """Store the options; see ``NormPruning`` for the rest.

        Args:
            iterations: Number of steps of the masks.
            epsilon: Bound of the perturbations, relative to scale and shift; at least 0.
            alpha: Weight of the unperturbed loss, in [0, 1].
            project: Project perturbations to the bound after the ascent step.
            options: Threshold, tolerance, seed, batch size, optimizer and schedule.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(epochs=iterations, **options)
        if epsilon < 0 or not 0 <= alpha <= 1:
            raise ValueError(
                f"method.epsilon must be at least 0 and method.alpha in [0, 1], got {epsilon} and {alpha}"
            )
        self.iterations, self.epsilon, self.alpha = iterations, epsilon, alpha
        self.project = project
        self.steps = 0

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Create the masks; return the model."""
        model = super().prepare(model, request)
        self.epochs = math.ceil(self.iterations / math.ceil(len(self.fit_set) / self.batch_size))
        return model

    def build_optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Return the optimizer of the masks."""
        return [self.optimizer(self.masks.parameters())]

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean of plain and adversarially perturbed loss, weighted by alpha."""
        image, label = batch["trusted"].image, batch["trusted"].label
        scale, shift = self.perturb(image, label)
        plain = F.cross_entropy(self.masks.compute_logits(self.model, image), label)
        noisy = self.masks.compute_logits(self.model, image, scale, shift)
        return self.alpha * plain + (1 - self.alpha) * F.cross_entropy(noisy, label)

    def perturb(self, image: Tensor, label: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return perturbations of scales and shifts after one step of ascent, (C,) per layer."""
        count = len(self.masks.names)
        noise = [self._draw_noise(mask) for mask in (*self.masks.masks, *self.masks.masks)]
        logits = self.masks.compute_logits(self.model, image, noise[:count], noise[count:])
        slopes = torch.autograd.grad(F.cross_entropy(logits, label), noise)
        moved = [n.detach() + self.epsilon * s.sign() for n, s in zip(noise, slopes, strict=True)]
        if self.project:
            moved = [n.clamp(-self.epsilon, self.epsilon) for n in moved]
        return moved[:count], moved[count:]

    def _draw_noise(self, mask: Tensor) -> Tensor:
        drawn = torch.rand(mask.shape, generator=self.generator).to(mask.device)
        return (self.epsilon * (2 * drawn - 1)).requires_grad_(True)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        """Clip the masks; stop after the last iteration."""
        self.masks.clip()
        self.steps += 1
        if self.steps >= self.iterations:
            trainer.should_stop = True
