"""CUTS: subtract the weight change that learning the corruption once more makes.

arXiv 2511.18660. Re-implemented. Differs: the proxy of the corruption is the forget set with its
given labels; the step stops once the forget set is forgotten. Shapes: n images, E features, K classes.
"""

import copy
import logging
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.components.checkpoint_selection import select_evenly_spaced
from unlearn.methods.components.neighbour_score import compute_neighbour_score
from unlearn.models.inference import compute_embedding, compute_logits
from unlearn.models.surgery import iterate_shuffled_images, recalibrate_batch_norm

log = logging.getLogger(__name__)

RULES = ("forget", "neighbours")
STEP = 0.05
LAST = {"forget": 5.0, "neighbours": 4.0}  # largest factor that is tried
PATIENCE = 10  # decreases in a row after which the neighbours rule stops


def name_batch_norm_tensors(model: nn.Module) -> set[str]:
    """Return the names of all parameters and buffers of batch-norm layers."""
    kinds = nn.modules.batchnorm._BatchNorm
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, kinds)
        for name in module.state_dict()
    }


class CUTS(UnlearningMethod):
    """Fine-tune a copy on the forget set, then step from the original in the opposite direction."""

    stackable = True
    full_precision: ClassVar[bool] = True
    budget_pass: ClassVar[str] = "forget"

    def __init__(
        self,
        *,
        factor: str,
        gamma: float,
        recalibrate: bool,
        samples: int,
        seed: int,
        **recipe: Any,
    ) -> None:
        """Store the options; see ``UnlearningMethod`` for the rest.

        Args:
            factor: "forget": the smallest factor at which the accuracy on the forget set is at most
                gamma; "neighbours": the best agreement of neighbouring predictions.
            gamma: Accuracy on the forget set's given labels, in [0, 1].
            recalibrate: Recompute batch-norm statistics on the retain set afterwards.
            samples: Number of retain images, without labels, of the neighbours rule.
            seed: Seed of the recalibration's order.
            recipe: Passes over the forget set, batch size, optimizer and schedule.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__(**recipe)
        if factor not in RULES:
            raise ValueError(f"method.factor must be one of {', '.join(RULES)}, got {factor}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"method.gamma must be in [0, 1], got {gamma}")
        if samples < 1:
            raise ValueError(f"method.samples must be at least 1, got {samples}")
        self.factor, self.gamma, self.recalibrate = factor, gamma, recalibrate
        self.samples, self.seed = samples, seed

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Keep the original's values; return the model."""
        model = super().prepare(model, request)
        self.request = request
        self.original = copy.deepcopy(model.state_dict())
        return model

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the cross-entropy on the given labels of the forget batch, to be minimised."""
        forget = batch["forget"]
        return F.cross_entropy(forward(forget.image), forget.label)

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the original minus the chosen multiple of the change."""
        untouched = name_batch_norm_tensors(model)
        change = {
            name: value - self.original[name].to(value.device)
            for name, value in model.state_dict().items()
            if value.is_floating_point() and name not in untouched
        }
        choose = self._choose_forgetting if self.factor == "forget" else self._choose_agreeing
        factor = choose(model, change)
        self.subtract_change(model, change, factor)
        self.notes["factor"] = factor
        if self.recalibrate:
            images = iterate_shuffled_images(self.request.retain, self.batch_size, self.seed)
            recalibrate_batch_norm(model, images)
        return model

    def subtract_change(
        self, model: nn.Module, change: Mapping[str, Tensor], factor: float
    ) -> None:
        """Set the model to the original minus ``factor`` times the change, in place."""
        model.load_state_dict(
            self.original
            | {n: self.original[n].to(c.device) - factor * c for n, c in change.items()}
        )

    def _choose_forgetting(self, model: nn.Module, change: Mapping[str, Tensor]) -> float:
        """Return the smallest factor that forgets; 0 if none does."""
        for number in range(round(LAST["forget"] / STEP) + 1):
            factor = round(number * STEP, 2)
            self.subtract_change(model, change, factor)
            if round(self.measure_accuracy(model, self.request.forget), 2) <= self.gamma:
                self.notes["converged"] = True
                return factor
        self.notes["converged"] = False
        log.warning("cuts: not forgotten at any factor; the original model is returned")
        return 0.0

    def _choose_agreeing(self, model: nn.Module, change: Mapping[str, Tensor]) -> float:
        """Return the factor with the highest agreement of neighbouring predictions."""
        data = select_evenly_spaced(self.request.retain, self.samples)
        best, chosen, before, falls = -math.inf, 0.0, math.inf, 0
        for number in range(round(LAST["neighbours"] / STEP) + 1):
            factor = round(number * STEP, 2)
            self.subtract_change(model, change, factor)
            probability = compute_logits(model, data).softmax(1).cpu()
            score = compute_neighbour_score(compute_embedding(model, data), probability)
            if score > best:
                best, chosen = score, factor
            falls = falls + 1 if score < before else 0
            before = score
            if falls >= PATIENCE:
                break
        self.notes["neighbour_score"] = best
        return chosen
