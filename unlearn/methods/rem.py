"""REM: Redirection for Erasing Memory (arXiv 2505.17730). Re-implemented from the paper and public notes.

1 expand: add channels, activated by one fixed mask per sample; the forget set shares one mask.
2 remove: NPO on the forget set in the base network until it is forgotten. 3 redirect: train the
full network on all data, so that the new channels learn undiscovered corruption, while the base
network keeps unlearning the forget set. 4 drop the new channels.

Ours: ``gamma=auto``, ``select=score``, and ``repair``, a short training on samples that the network agrees with.
Differs: masks come from one table per seed with a reserved row for the forget set (the reference
uses two ids by mistake); removal may use normalised steps and a separate forget batch, which runs
with the new channels off in the same forward pass: batch statistics are then those of the joint
batch, and only through them does the removal term affect the new channels.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod, can_use_batch_statistics, set_batch_norm
from unlearn.methods.components.checkpoint_selection import BestCheckpoint
from unlearn.methods.components.distillation import frozen_copy
from unlearn.methods.components.losses import build_membership_table
from unlearn.methods.components.removal_stop import RemovalStop
from unlearn.methods.components.repair import Repair, RepairRecipe
from unlearn.methods.rem_expansion import build_expanded_model
from unlearn.methods.rem_objective import REMObjective
from unlearn.methods.rem_options import REMOptions
from unlearn.models.expansion.expanded import (
    Expanded,
    is_native,
    remove_extra_channels,
)
from unlearn.models.surgery import iterate_shuffled_images, recalibrate_batch_norm

REDIRECT, REMOVE, REPAIR = 0, 1, 2


class REM(UnlearningMethod):
    """Expand, remove, redirect, drop."""

    stackable = True
    mean_loss = True
    budget_pass: ClassVar[str] = "all"
    step_cost: ClassVar[float] = 3.0  # twice the channels, and the frozen reference
    localizable: ClassVar[bool] = False

    def __init__(
        self,
        *,
        epochs: int,
        batch_size: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[int, int], float],
        removal_optimizer: Callable[..., torch.optim.Optimizer] | None,
        repair: RepairRecipe | None = None,
        seed: int,
        **options: Any,
    ) -> None:
        """Store the recipe.

        Args:
            epochs: Number of redirection epochs.
            batch_size: B.
            optimizer: For redirection, and for removal if ``removal_optimizer`` is None.
            schedule: Learning-rate factor over the redirection steps.
            removal_optimizer: For removal; None: share ``optimizer`` and its momentum.
            repair: Recipe of the repair; None: no repair.
            seed: Seed of new weights, masks and the order in which statistics are recomputed.
            options: See ``REMOptions``.
        """
        super().__init__(
            epochs=epochs, batch_size=batch_size, optimizer=optimizer, schedule=schedule
        )
        self.removal_optimizer = removal_optimizer
        self.recipe = repair
        self.seed = seed
        self.options = REMOptions(**options)
        self.stop = RemovalStop(
            self.options.gamma, force=self.options.force, per_sample=self.options.per_sample
        )
        self.redirected = self.removals = self.removals_in_a_row = self.repaired = 0
        self.mode = REDIRECT

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Check that at least one layer of the network can be expanded."""
        if self.options.expand and not (isinstance(model, Expanded) or is_native(model)):
            from unlearn.models.expansion.any_architecture import check_growable

            check_growable(model, image)

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the expanded network; create the frozen reference and set the first phase."""
        o = self.options
        self.stop.start(remove_extra_channels(model), request, self.measure_accuracy, self.notes)
        if self.stop.nothing:
            return remove_extra_channels(model)
        new = build_expanded_model(model, request, o, self.seed)
        known = o.get_removal_indices(request)
        if isinstance(new, Expanded) and o.shared_mask:
            new.share_mask(known)
        if isinstance(new, Expanded) and o.batch_norm == "separate":
            new.separate_statistics()
        tables = [
            build_membership_table(part, request.get_all_indices())
            for part in (request.forget.index, known)
        ]
        total = len(request.get_all_indices())
        size = request.get_table_size()
        limits = self.stop.make_limits(size)
        terms = REMObjective(
            o, frozen_copy(new), *tables, share=len(request.forget) / total, limits=limits
        )
        device = next(new.parameters()).device
        self.terms = terms.to(device)
        self.repair = Repair(self.recipe, size).to(device) if self.recipe else None
        self.request = request
        self.best = BestCheckpoint(
            request,
            mode=o.select,
            threshold=self.stop.accuracy,
            samples=o.select_samples,
            images_per_pass=total,
            measure=self.measure_accuracy,
        )
        self.removal_statistics = can_use_batch_statistics(
            o.removal_batch_norm, request, self.batch_size
        )
        self._update_mode(new)
        self.count_measured(self.best.start(new, self.stop.floors))
        if o.select_original and o.select != "last":
            self.count_measured(self.best.update(new, self.forget_accuracy, 0))
        return new

    def _update_mode(self, model: nn.Module) -> None:
        self.forget_accuracy = self.measure_accuracy(model, self.request.forget)
        wanted = not self.stop.is_reached(self.forget_accuracy)
        allowed = self.removals_in_a_row < self.options.max_removal_epochs
        self.mode = REMOVE if wanted and allowed else REDIRECT

    def get_extra_cost(self) -> float:
        """Return the cost of the repair."""
        return self.recipe.epochs / self.recipe.pretraining_epochs if self.recipe else 0.0

    def needs_training(self) -> bool:
        """Return whether there is something to unlearn and ``epochs`` is above 0."""
        return super().needs_training() and not self.stop.nothing

    def get_spread_obstacle(self, parts: int) -> str | None:
        """Return why the method cannot be trained on batches in parts; None if it can."""
        o = self.options
        if o.removal_term and not o.removal_batch_size and o.removal_weight == "mean":
            return "removal_weight=mean averages over the forget samples of each batch"
        return super().get_spread_obstacle(parts)

    def uses(self, epoch: int) -> tuple[str, ...]:
        """Return "forget" during removal, "all" during redirection, "retain" during the repair."""
        if self.mode != REDIRECT:
            return ("forget" if self.mode == REMOVE else "retain",)
        return ("all", "forget") if self.options.removal_batch_size else ("all",)

    def batch_sizes(self) -> dict[str, int]:
        """Return B; during redirection the forget batch may have its own size."""
        forget = self.options.removal_batch_size
        own = forget if self.mode == REDIRECT and forget else self.batch_size
        repair = self.recipe.batch_size if self.recipe else self.batch_size
        return {"all": self.batch_size, "forget": own, "retain": repair}

    def build_optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Return the optimizers of redirection, of removal if it has its own, and of the repair."""
        makers = [self.optimizer, self.removal_optimizer, self.recipe and self.recipe.optimizer]
        return [make(model.parameters()) for make in makers if make is not None]

    def get_optimizer_index(self) -> int:
        """Return the index of the phase's optimizer."""
        return self.mode if self.removal_optimizer else self.mode // 2

    def is_budget_step(self) -> bool:
        """Return whether the step is one of redirection."""
        return self.mode == REDIRECT

    def get_rate_factor(self, spent: int, total: int) -> float:
        """Return the learning-rate factor: removal's is 1, the repair has its own schedule."""
        if self.repair and self.mode == REPAIR:
            return self.repair.get_rate_factor()
        return super().get_rate_factor(spent, total)

    def max_epochs(self) -> int:
        """Return -1: the number of removal epochs is not known in advance."""
        return -1

    def get_monitored_modes(self, model: nn.Module) -> dict[str, bool]:
        """Return the base and the full network."""
        return {"base": False} | ({"full": True} if self.options.expand else {})

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the objective with its frozen reference and sample tables, and the repair's."""
        parts: dict[str, nn.Module] = {"terms": self.terms}
        return parts | ({"repair": self.repair} if self.repair else {})

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of the current phase."""
        if self.repair and self.mode == REPAIR:
            return self.repair.compute_loss(forward, batch["retain"])
        if self.mode == REMOVE:
            return self.terms.compute_removal_step_loss(forward, batch["forget"])
        if "forget" in batch:
            return self.terms.compute_separate_batch_loss(forward, batch["all"], batch["forget"])
        return self.terms.compute_joint_batch_loss(forward, batch["all"])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the batch-norm mode of the phase."""
        train = self.mode != REMOVE or self.removal_statistics
        set_batch_norm(pl_module.model, train=train)  # type: ignore[arg-type]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count a step of the repair."""
        if self.repair and self.mode == REPAIR:
            self.repair.steps += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the epoch, measure the accuracies and set the next phase."""
        model: Any = pl_module.model
        if self.repair and self.mode == REPAIR:
            self.repaired += 1
            trainer.should_stop = self.repaired >= self.repair.recipe.epochs
            if trainer.should_stop:
                self._offer_repaired(model, self.repair)
            return
        if self.mode == REMOVE:
            self.removals += 1
            self.removals_in_a_row += 1
            self._update_mode(model)
            return
        self.redirected += 1
        self.removals_in_a_row = 0
        if self.options.batch_norm == "recalibrate":
            recalibrate_batch_norm(
                model, iterate_shuffled_images(self.request.retain, self.batch_size, self.seed)
            )
        self._update_mode(model)
        self.count_measured(self.best.update(model, self.forget_accuracy, self.redirected))
        if self.redirected >= self.epochs:
            trainer.should_stop = not self._start_repair(model)

    def _start_repair(self, model: nn.Module) -> bool:
        """Return whether there is a repair: not of the original, which agrees with what it learned."""
        self.best.restore_best_weights(model)
        if not self.repair or not self.best.epoch:
            return False
        self.count_measured(self.repair.start(model, self.request.retain, seed=self.seed))
        self.notes["agreeing"] = float(self.repair.agrees.sum()) / len(self.request.retain)
        self.mode = REPAIR
        return True

    def _offer_repaired(self, model: nn.Module, repair: Repair) -> None:
        """Keep the repaired network if it is accepted."""
        self.forget_accuracy = self.measure_accuracy(model, self.request.forget)
        given = self.stop.forget_accuracy, self.best.forget_accuracy, self.forget_accuracy
        epoch = self.redirected + self.repaired
        last = self.options.select == "last"
        if last or repair.is_accepted(model, self.request.retain, given):
            self.best.keep(model, self.forget_accuracy, epoch)
        self.count_measured(int(repair.agrees.sum()))
        self.notes["repaired"] = self.best.epoch == epoch

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the selected checkpoint without the new channels."""
        if self.stop.nothing:
            return model
        self.notes |= {"removal_epochs": self.removals, "redirection_epochs": self.redirected}
        self.notes |= self.best.restore_best_weights(model)
        return remove_extra_channels(model)
