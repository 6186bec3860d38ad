"""REM: redirection for erasing memory (arXiv 2505.17730). Re-implemented from the description.

Expand the network, remove the forget set from the old part, redirect whatever corruption is left to
the new part while removal goes on, drop the new part. "base" is the old part alone (what will be
deployed), "full" is the network with each sample's mask; the forget set shares one mask.
Differs: batch-norm statistics may be recomputed, removal may draw its own forget batch (both options).
Shapes: B batch.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core import Batch, Forward, Request
from unlearn.methods.base import UnlearningMethod, set_batch_norm
from unlearn.methods.losses import member, npo_loss, redirect_loss, sample_losses, saturating
from unlearn.methods.rem_options import REMOptions
from unlearn.methods.selection import BestByProxy
from unlearn.models.expansion import Expanded, drop, expand
from unlearn.models.predict import accuracy
from unlearn.models.surgery import recalibrate

REMOVE, REDIRECT = 1, 0


class REM(UnlearningMethod):
    """Expand, remove, redirect, drop."""

    budget_pass: ClassVar[str] = "all"

    def __init__(
        self,
        *,
        epochs: int,
        batch_size: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[int, int], float],
        removal_optimizer: Callable[..., torch.optim.Optimizer] | None,
        seed: int,
        **options: Any,
    ) -> None:
        """Keep the recipe.

        Args:
            epochs: Redirection epochs.
            batch_size: B.
            optimizer: For redirection, and for removal unless that has its own.
            schedule: Learning-rate factor over the redirection steps.
            removal_optimizer: For removal; None shares ``optimizer`` and its momentum.
            seed: Seeds new weights and masks.
            options: See ``REMOptions``.
        """
        super().__init__(
            epochs=epochs, batch_size=batch_size, optimizer=optimizer, schedule=schedule
        )
        self.removal_optimizer = removal_optimizer
        self.seed = seed
        self.options = REMOptions(**options)
        self.redirected = self.removals = self.removals_in_a_row = 0
        self.mode = REDIRECT

    def prepare(self, model: nn.Module, request: Request) -> Expanded:
        """Expand the network, freeze the reference and see whether removal is due."""
        o = self.options
        samples = len(request.forget) + len(request.retain)
        if isinstance(model, Expanded):
            if not model.density:  # trained with idle channels: wake them
                model.redraw(density=o.density, seed=self.seed)
            new = model
        else:
            new = expand(
                model, ratio=o.ratio, num_samples=samples, density=o.density, seed=self.seed
            )
        self.forget_index = request.forget.index
        if o.shared_mask:
            new.share(self.forget_index)
        self.reference = copy.deepcopy(new).eval().requires_grad_(False)
        self.request = request
        self.best = BestByProxy(request, mode=o.select, threshold=o.gamma, samples=o.select_samples)
        self._look(new)
        self.best.offer(new, self.forget_accuracy)
        return new

    def _look(self, model: nn.Module) -> None:
        self.forget_accuracy = accuracy(model, self.request.forget)
        wanted = self.forget_accuracy > self.options.gamma
        allowed = self.removals_in_a_row < self.options.max_removal_epochs
        self.mode = REMOVE if wanted and allowed else REDIRECT

    def uses(self, epoch: int) -> tuple[str, ...]:
        """Return the forget set while removing, everything while redirecting."""
        if self.mode == REMOVE:
            return ("forget",)
        return ("all", "forget") if self.options.removal_batch_size else ("all",)

    def batch_sizes(self) -> dict[str, int]:
        """Return B; while redirecting the removal term may have its own."""
        forget = self.options.removal_batch_size
        own = forget if self.mode == REDIRECT and forget else self.batch_size
        return {"all": self.batch_size, "forget": own}

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Return one optimizer for redirection and, if it has its own, one for removal."""
        makers = [self.optimizer, self.removal_optimizer or None]
        return [make(model.parameters()) for make in makers if make is not None]

    def phase(self) -> int:
        """Return 1 while removing."""
        return self.mode

    def max_epochs(self) -> int:
        """Return -1: the number of removal epochs is not known beforehand."""
        return -1

    def views(self, model: nn.Module) -> dict[str, bool]:
        """Return both networks."""
        return {"base": False, "full": True}

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of the current step."""
        if self.mode == REMOVE:
            return self._remove(forward, batch["forget"])
        if "forget" in batch:
            return self._redirect_beside(forward, batch["all"], batch["forget"])
        return self._redirect_within(forward, batch["all"])

    def _reference(self, batch: Batch) -> Tensor:
        index = (batch.index,) if self.options.reference == "masked" else ()
        with torch.no_grad():
            return sample_losses(self.reference(batch.image, *index).float(), batch.label)

    def _remove(self, forward: Forward, forget: Batch) -> Tensor:
        loss = sample_losses(forward(forget.image), forget.label)
        return npo_loss(loss, self._reference(forget), self.options.beta)

    def _redirect(self, loss: Tensor, batch: Batch) -> Tensor:
        o = self.options
        reference = loss if o.redirect_loss == "ce" else self._reference(batch)
        return redirect_loss(loss, reference, o.beta, o.redirect_loss)

    def _redirect_within(self, forward: Forward, batch: Batch) -> Tensor:
        """Removal acts on the forget samples of the joint batch, weighted by their share (paper)."""
        if not self.options.removal_term:
            full = sample_losses(forward(batch.image, batch.index), batch.label)
            return self._redirect(full, batch)
        base = sample_losses(forward(batch.image), batch.label)
        full = sample_losses(forward(batch.image, batch.index), batch.label)
        gap = saturating(base - self._reference(batch), self.options.beta)
        found = member(batch.index, self.forget_index)
        return self._redirect(full, batch) - (gap * found).sum() / len(batch.label)

    def _redirect_beside(self, forward: Forward, batch: Batch, forget: Batch) -> Tensor:
        """Removal has a batch of its own, run with the new channels off in one joint forward."""
        image = torch.cat([batch.image, forget.image])
        index = torch.cat([batch.index, torch.full_like(forget.index, -1)])
        label = torch.cat([batch.label, forget.label])
        full, base = sample_losses(forward(image, index), label).split(
            [len(batch.label), len(forget.label)]
        )
        loss = self._redirect(full, batch)
        if self.options.removal_term:
            loss = loss + npo_loss(base, self._reference(forget), self.options.beta)
        return loss

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the batch-norm mode of the phase."""
        removing = self.mode == REMOVE and self.options.removal_batch_norm == "eval"
        set_batch_norm(pl_module.model, train=not removing)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the epoch, measure, and decide what comes next."""
        model: Any = pl_module.model
        if self.mode == REMOVE:
            self.removals += 1
            self.removals_in_a_row += 1
            self._look(model)
            return
        self.redirected += 1
        self.removals_in_a_row = 0
        done = self.redirected >= self.epochs
        if self.options.batch_norm == "recalibrate":
            self._recalibrate(model)
        self._look(model)
        self.best.offer(model, self.forget_accuracy)
        trainer.should_stop = done

    def _recalibrate(self, model: Expanded) -> None:
        recalibrate(model, (b.image for b in self.request.everything().batches(self.batch_size)))

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the chosen checkpoint without the new channels."""
        self.notes |= {
            "removal_epochs": self.removals,
            "redirection_epochs": self.redirected,
            "converged": self.forget_accuracy <= self.options.gamma,
        }
        self.best.restore(model)
        return drop(model)
