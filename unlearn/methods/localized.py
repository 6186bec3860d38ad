"""Localized unlearning: run any method on the parameters that a localization selects.

After arXiv 2412.02432; re-implemented. Differs: frozen entries are restored after each step, since
masked gradients alone do not stop weight decay or momentum. Shapes: masks are like parameters.
"""

from collections.abc import Mapping, Sequence

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.components.frozen_parameters import FrozenParameters
from unlearn.methods.components.masked_training import (
    HEAD_MODES,
    FrozenBatchNorm,
    build_training_mask,
    compute_mask,
    copy_parameters,
    describe_mask,
    match_parameter_names,
    restore_outside_mask,
)
from unlearn.methods.localization.base import Localizer
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.layer_groups import example_images, group_by_layer, list_head_parameters
from unlearn.models.surgery import iterate_shuffled_images, recalibrate_batch_norm

BATCH_NORM_MODES = ("update", "freeze", "recalibrate")


class Localized(UnlearningMethod):
    """Run a method; entries outside the mask remain bit-identical."""

    has_localization = True

    def __init__(
        self,
        method: UnlearningMethod,
        *,
        localizer: Localizer,
        budget: float | None,
        batch_norm: str,
        head: str | None,
        trainable: Sequence[str] | None = None,
    ) -> None:
        """Store the options.

        Args:
            method: Any method that keeps the network's shape.
            localizer: Selects the parameters that are trained.
            budget: Share of all parameters, in (0, 1]; None if the localizer sets it.
            batch_norm: Running statistics (not part of the budget): "update" as the method does;
                "freeze"; "recalibrate" on the retain set at the end.
            head: Train the classification head "always", as "masked", or train "only" the head;
                None: default of the method.
            trainable: Name patterns of parameters trained in addition; not part of the budget.

        Raises:
            ValueError: If an option is unknown, or the budget is missing or out of range.
        """
        recipe = ("epochs", "batch_size", "optimizer", "schedule")
        super().__init__(**{name: getattr(method, name) for name in recipe})
        for key, value, options in (
            ("batch_norm", batch_norm, BATCH_NORM_MODES),
            ("head", head or method.head, HEAD_MODES),
        ):
            if value not in options:
                raise ValueError(f"mask_{key} must be one of {', '.join(options)}, got {value}")
        if not method.localizable:
            name = type(method).__name__
            raise ValueError(f"{name} changes the network's shape, so it cannot be localized")
        if budget is None and localizer.needs_budget:
            raise ValueError("budget is missing: the share of parameters to train, in (0, 1]")
        if budget is not None and not 0 < budget <= 1:
            raise ValueError(f"budget must be in (0, 1], got {budget}")
        self.method, self.localizer, self.budget = method, localizer, budget
        self.batch_norm, self.head_mode = batch_norm, head or method.head
        self.trainable = list(trainable or ())
        for name in ("full_precision", "budget_pass", "step_cost", "needs_trusted", "notes"):
            setattr(self, name, getattr(method, name))
        self.stackable, self.compilable = method.stackable, method.compilable
        self.mean_loss = method.mean_loss
        self.frozen: list[L.Callback] = []

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Compute the mask, prepare the method, and restore all entries outside the mask."""
        model, self.request = remove_extra_channels(model), request
        before, image = copy_parameters(model), example_images(request)
        self.mask = compute_mask(self.localizer, model, request.without_trusted(), self.budget)
        self.moving = build_training_mask(
            self.mask,
            list_head_parameters(model, image),
            self.head_mode,
            match_parameter_names(self.mask, self.trainable),
        )
        self.notes |= describe_mask(self.mask, self.moving, group_by_layer(model, image))
        self.notes["localization/budget"] = self.budget
        self.notes["localization/seconds"] = self.mask.facts["seconds"]
        model = self.method.prepare(model, request)
        restore_outside_mask(model, self.mask, before)
        self.start = copy_parameters(model)
        self.frozen = [FrozenParameters(self.moving)]
        return model

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the finished model, with frozen entries restored."""
        model = self.method.finish(model)
        restore_outside_mask(model, self.moving, self.start)
        if self.batch_norm == "recalibrate":
            seed = getattr(self.method, "seed", 0)
            recalibrate_batch_norm(
                model, iterate_shuffled_images(self.request.retain, self.batch_size, seed)
            )
        return model

    def get_spread_obstacle(self, parts: int) -> str | None:
        """Return why the method cannot be trained on batches in parts; None if it can."""
        return self.method.get_spread_obstacle(parts)

    def callbacks(self) -> list[L.Callback]:
        """Return the freezing callbacks and the method's callbacks."""
        still = [FrozenBatchNorm()] if self.batch_norm == "freeze" else []
        return [*self.frozen, *self.method.callbacks(), *still]

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the method's loss."""
        return self.method.loss(forward, batch)

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the modules that the method's loss reads."""
        return self.method.get_loss_modules()

    def uses(self, epoch: int) -> tuple[str, ...]:
        """Return the sets that the method uses."""
        return self.method.uses(epoch)

    def batch_sizes(self) -> dict[str, int]:
        """Return the method's batch sizes."""
        return self.method.batch_sizes()

    def build_optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Return the method's optimizers."""
        return self.method.build_optimizers(model)

    def is_budget_step(self) -> bool:
        """Return whether a step of the method counts as budget."""
        return self.method.is_budget_step()

    def get_rate_factor(self, spent: int, total: int) -> float:
        """Return the method's learning-rate factor."""
        return self.method.get_rate_factor(spent, total)

    def get_optimizer_index(self) -> int:
        """Return the method's current optimizer index."""
        return self.method.get_optimizer_index()

    def max_epochs(self) -> int:
        """Return the method's maximum number of epochs."""
        return self.method.max_epochs()

    def needs_training(self) -> bool:
        """Return whether the method needs training."""
        return self.method.needs_training()

    def get_monitored_modes(self, model: nn.Module) -> dict[str, bool]:
        """Return the method's modes to monitor."""
        return self.method.get_monitored_modes(model)
