"""CritMem: channels whose removal misclassifies a forget sample (arXiv 2307.09542, 2412.02432).

Re-implemented from the descriptions. For each forget sample, starting from the original model, the
channel with the largest expected loss increase on that sample, and the smallest on others, is set
to zero, or changed by a gradient step, until the sample is misclassified. The mask is the union of
these channels, which determines its size; a smaller budget selects the most frequent ones first.
Differs: logits of noisy copies are averaged; the step size is ours.
Shapes: B batch, U units.
"""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import ImageSet, Request
from unlearn.methods.localization.base import check_option
from unlearn.methods.localization.mask import count_allowed_parameters
from unlearn.methods.localization.mean_gradients import get_image_set
from unlearn.methods.localization.parameter_units import Units, select_best_units
from unlearn.models.layers import get_trainable_parameters
from unlearn.models.surgery import eval_mode

log = logging.getLogger(__name__)


def critical_objective(losses: Tensor, own: int) -> Tensor:
    """Return (sum of the other losses - B * loss of ``own``) / B, a scalar, for losses (B,)."""
    size = len(losses)
    others = losses.sum() - losses[own]
    return (others - size * losses[own]) / size


def add_noise(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Return images (B, C, H, W) with noise whose norm is ``strength`` times that of each image."""
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    norms = [t.flatten(1).norm(dim=1).clamp_min(1e-12) for t in (image, noise)]
    return image + noise * (strength * norms[0] / norms[1]).view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class CriticalMemorization:
    """Union of the critical channels of the forget samples.

    Attributes:
        batch_size: B of the batch with the sample and others of the training set.
        num_copies: Number of noisy copies over which predictions are averaged, at least 1.
        noise: Norm of the noise relative to the image's, >= 0.
        num_iterations: Maximum number of changes per sample, at least 1.
        objective: "zero": set the channel with the largest sum of weight * gradient to zero;
            "step": take a descent step in the channel with the largest sum of |gradient|.
        step_size: Factor on the gradient in that step, above 0.
        max_examples: Number of randomly chosen forget samples to use; None: all.
        granularity: "channel": filters of convolutions, scalars of all others; "parameter".
        seed: Seed of the batches, the noise and the choice.
    """

    batch_size: int
    num_copies: int
    noise: float
    num_iterations: int
    objective: str
    step_size: float
    max_examples: int | None
    granularity: str
    seed: int
    needs_budget = False

    def __post_init__(self) -> None:
        """Check the options."""
        check_option("granularity", self.granularity, ("channel", "parameter"))
        check_option("objective", self.objective, ("zero", "step"))
        if self.step_size <= 0:
            raise ValueError(f"localization.step_size must be above 0, got {self.step_size}")
        numbers = {"num_copies": self.num_copies, "num_iterations": self.num_iterations}
        numbers |= {"batch_size": self.batch_size - 1, "max_examples": self.max_examples or 1}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"localization.{name} is too small, got {getattr(self, name)}")
        if self.noise < 0:
            raise ValueError(f"localization.noise must be at least 0, got {self.noise}")

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return the mask; it is smaller than the budget if the union is.

        Raises:
            ValueError: If no channel is critical, or none fits into the budget.
        """
        units = self._build_unscored_units(model)
        times, total = torch.zeros(len(units.size)), torch.zeros(len(units.size))
        kept = 0
        for found, lost in self._find_critical_units(model, request, units):
            kept += not lost
            for unit, value in found.items():
                times[unit] += 1
                total[unit] += value
        if kept:
            log.warning("forget samples still classified after all changes: %d", kept)
        chosen = times.nonzero().flatten()
        if not len(chosen):
            raise ValueError("no channel is critical: every forget sample is misclassified already")
        count = count_allowed_parameters(sum(s.numel() for s in units.shape.values()), budget)
        union = int(units.size[chosen].sum())
        if union < count and budget < 1:
            log.warning(
                "only %d parameters are critical, budget=%s allows %d", union, budget, count
            )
        mean = total / times.clamp_min(1)
        rank = torch.zeros(len(times))  # by times, then by mean importance
        order = chosen[torch.argsort(mean[chosen], stable=True)]
        order = order[torch.argsort(times[order], stable=True)]
        rank[order] = torch.arange(1, len(order) + 1, dtype=torch.float32)
        ranked = Units(units.unit_index, rank, units.size, units.shape)
        return select_best_units(ranked, min(count, union), fill="whole")

    def _build_unscored_units(self, model: nn.Module) -> Units:
        number, sizes, start = {}, [], 0
        shape = {n: p.shape for n, p in get_trainable_parameters(model).items()}
        for name, s in shape.items():
            by_filter = self.granularity == "channel" and len(s) == 4
            amount = s[0] if by_filter else s.numel()
            own = torch.arange(start, start + amount)
            number[name] = own.view(-1, 1, 1, 1) if by_filter else own.view(s)
            sizes.append(torch.full((amount,), s.numel() // amount))
            start += amount
        size = torch.cat(sizes)
        return Units(number, torch.zeros(len(size)), size, shape)

    def _find_critical_units(
        self, model: nn.Module, request: Request, units: Units
    ) -> Iterator[tuple[dict[int, float], bool]]:
        """Yield per sample the changed units with their importance, and whether it succeeded."""
        generator = torch.Generator().manual_seed(self.seed)
        everything = get_image_set(request, "all")
        rows = torch.randperm(len(request.forget), generator=generator)
        for row in rows[: self.max_examples].sort().values.tolist():
            own = request.forget.rows(torch.tensor([row], device=request.forget.label.device))
            others = torch.randperm(len(everything), generator=generator)[: self.batch_size]
            beside = everything.rows(others.to(everything.label.device))
            differs = beside.index != own.index
            beside = beside.rows(differs.nonzero().flatten()[: self.batch_size - 1])
            with eval_mode(model):
                yield self._change_until_misclassified(
                    copy.deepcopy(model).eval(), own, beside, units, generator
                )

    def _change_until_misclassified(
        self,
        model: nn.Module,
        own: ImageSet,
        beside: ImageSet,
        units: Units,
        generator: torch.Generator,
    ) -> tuple[dict[int, float], bool]:
        device = next(model.parameters()).device
        parts = [next(p.batches(max(2, len(p)))) for p in (own, beside)]
        image = torch.cat([p.image for p in parts]).to(device)
        label = torch.cat([p.label for p in parts]).to(device)
        parameters = get_trainable_parameters(model)
        changed: dict[int, float] = {}
        for _ in range(self.num_iterations):
            with torch.enable_grad():
                copies = [
                    model(add_noise(image, self.noise, generator)).float()
                    for _ in range(self.num_copies)
                ]
                logits = torch.stack(copies).mean(0)
                if int(logits[0].argmax()) != int(label[0]):
                    return changed, True
                losses = F.cross_entropy(logits, label, reduction="none")
                slopes = torch.autograd.grad(
                    critical_objective(losses, 0), list(parameters.values()), materialize_grads=True
                )
            zero = self.objective == "zero"
            importance = _compute_unit_importance(parameters, slopes, units, zero=zero)
            best = int(importance.argmax())
            if importance[best] <= 0:
                break
            changed.setdefault(best, float(importance[best]))
            with torch.no_grad():
                for (name, p), slope in zip(parameters.items(), slopes, strict=True):
                    new = torch.zeros_like(p) if zero else p - self.step_size * slope
                    p.copy_(torch.where((units.unit_index[name] == best).to(device), new, p))
        return changed, False


def _compute_unit_importance(
    parameters: dict[str, nn.Parameter],
    slopes: tuple[Tensor, ...],
    units: Units,
    *,
    zero: bool,
) -> Tensor:
    """Return the sum of weight * slope, or of |slope|, over the entries of each unit, (U,)."""
    parts = []
    for (name, p), slope in zip(parameters.items(), slopes, strict=True):
        value = (p.detach() * slope if zero else slope.abs()).cpu()
        by_filter = units.unit_index[name].numel() != p.numel()
        parts.append(value.flatten(1).sum(1) if by_filter else value.flatten())
    return torch.cat(parts)
