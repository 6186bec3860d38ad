"""Parameters, or entries of them, that stay where they are, whatever the optimizer does.

A masked gradient alone is not enough: momentum and weight decay move weights without any.
Shapes: a mask has the shape of its parameter.
"""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn


class FrozenParameters(L.Callback):
    """Restores frozen entries bit for bit after each step of any optimizer, and hides their gradients."""

    def __init__(self, may_move: Mapping[str, Tensor]) -> None:
        """Keep the masks.

        Args:
            may_move: Bool tensor by parameter name, True where it may move; a parameter without a
                mask may.

        Raises:
            ValueError: If nothing may move.
        """
        if not any(bool(mask.any()) for mask in may_move.values()):
            raise ValueError("every parameter is frozen; at least one entry must be free to move")
        self.may_move = dict(may_move)
        self._frozen_entries: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        self._frozen_parameters: list[nn.Parameter] = []

    def freeze_entries(self, model: nn.Module) -> None:
        """Remember the frozen entries; parameters frozen as a whole need no gradient from now on.

        Raises:
            ValueError: If a mask fits no parameter.
        """
        parameters = dict(model.named_parameters())
        self._frozen_entries, self._frozen_parameters = [], []
        for name, mask in self.may_move.items():
            if name not in parameters or parameters[name].shape != mask.shape:
                raise ValueError(f"mask '{name}' {tuple(mask.shape)} fits no parameter")
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
        """Zero the gradient of frozen entries: an optimizer that scales by the norm must not see it."""
        for parameter, still, _ in self._frozen_entries:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(still, 0)

    @torch.no_grad()
    def restore_frozen_entries(self) -> None:
        """Put frozen entries back."""
        for parameter, still, value in self._frozen_entries:
            parameter.copy_(torch.where(still, value, parameter))

    def unfreeze_parameters(self) -> None:
        """Let everything have gradients again."""
        for parameter in self._frozen_parameters:
            parameter.requires_grad_(True)
        self._frozen_entries, self._frozen_parameters = [], []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hold the model as training starts."""
        self.freeze_entries(pl_module.model)  # type: ignore[arg-type]

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Hide gradients."""
        self.mask_gradients()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Restore after the step."""
        self.restore_frozen_entries()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Release the model."""
        self.unfreeze_parameters()
