"""Freezing of parameters, or of single entries, for any optimizer.

Masking gradients is not enough: momentum and weight decay change weights without a gradient.
Shapes: a mask has the shape of its parameter.
"""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn


class FrozenParameters(L.Callback):
    """Restore frozen entries bit-identically after each optimizer step and zero their gradients."""

    def __init__(self, may_move: Mapping[str, Tensor]) -> None:
        """Store the masks.

        Args:
            may_move: Bool tensor by parameter name, True for trainable entries; parameters without
                a mask are trainable.

        Raises:
            ValueError: If every entry is frozen.
        """
        if not any(bool(mask.any()) for mask in may_move.values()):
            raise ValueError("every parameter is frozen; at least one entry must be trainable")
        self.may_move = dict(may_move)
        self._frozen_entries: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        self._frozen_parameters: list[nn.Parameter] = []

    def freeze_entries(self, model: nn.Module) -> None:
        """Copy the frozen entries; parameters frozen as a whole no longer require gradients.

        Raises:
            ValueError: If a mask does not match a parameter.
        """
        parameters = dict(model.named_parameters())
        self._frozen_entries, self._frozen_parameters = [], []
        for name, mask in self.may_move.items():
            if name not in parameters or parameters[name].shape != mask.shape:
                raise ValueError(f"mask '{name}' {tuple(mask.shape)} does not match any parameter")
            parameter = parameters[name]
            if mask.all():
                continue
            still = ~mask.to(parameter.device)
            self._frozen_entries.append((parameter, still, parameter.detach().clone()))
            if parameter.requires_grad and not mask.any():
                parameter.requires_grad_(False)
                self._frozen_parameters.append(parameter)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradients of frozen entries, which would affect optimizers that use the norm."""
        for parameter, still, _ in self._frozen_entries:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(still, 0)

    @torch.no_grad()
    def restore_frozen_entries(self) -> None:
        """Restore the values of frozen entries."""
        for parameter, still, value in self._frozen_entries:
            parameter.copy_(torch.where(still, value, parameter))

    def unfreeze_parameters(self) -> None:
        """Require gradients again for parameters frozen as a whole."""
        for parameter in self._frozen_parameters:
            parameter.requires_grad_(True)
        self._frozen_entries, self._frozen_parameters = [], []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freeze the entries at the start of training."""
        self.freeze_entries(pl_module.model)  # type: ignore[arg-type]

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Zero the gradients of frozen entries."""
        self.mask_gradients()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Restore frozen entries after the step."""
        self.restore_frozen_entries()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Unfreeze all parameters."""
        self.unfreeze_parameters()
