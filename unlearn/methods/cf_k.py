"""CF-k: fine-tune only the last k layers (Goel et al., arXiv 2201.06640). Re-implemented.

Layers are convolutions and linear maps, counted from the output.
"""

from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.components.frozen_parameters import FrozenParameters
from unlearn.methods.finetune import Finetune
from unlearn.models.layers import group_modules_by_layer


def split_last_layers(model: nn.Module, k: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the modules before the last ``k`` layers and those of the last ``k``; -1: all layers.

    Raises:
        ValueError: If the network has fewer than ``k`` layers.
    """
    parts = group_modules_by_layer(model)
    if k > len(parts):
        raise ValueError(
            f"method.k must be -1 (all layers) or in 1..{len(parts)}, the layers of "
            f"{type(model).__name__}, got {k}"
        )
    cut = 0 if k == -1 else len(parts) - k
    early, late = parts[:cut], parts[cut:]
    return [m for part in early for m in part], [m for part in late for m in part]


def build_trainable_mask(model: nn.Module, still: list[nn.Module]) -> dict[str, Tensor]:
    """Return a mask per parameter, True unless the parameter belongs to a module in ``still``."""
    own = {id(p) for module in still for p in module.parameters(recurse=False)}
    return {
        name: torch.tensor(id(p) not in own, device=p.device).expand_as(p)
        for name, p in model.named_parameters()
    }


class CFk(Finetune):
    """Fine-tune the last k layers; the others are frozen, including batch-norm statistics."""

    def __init__(self, *, k: int, **recipe: Any) -> None:
        """Store k, the number of trained layers, -1 for all; see ``UnlearningMethod`` for the rest.

        Raises:
            ValueError: If k is neither -1 nor at least 1.
        """
        super().__init__(**recipe)
        if k != -1 and k < 1:
            raise ValueError(f"method.k must be -1 (all layers) or at least 1, got {k}")
        self.k = k
        self.frozen: list[L.Callback] = []

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Select the frozen layers; return the model."""
        model = super().prepare(model, request)
        self.still, self.moving = split_last_layers(model, self.k)
        self.frozen = [FrozenParameters(build_trainable_mask(model, self.still))]
        return model

    def callbacks(self) -> list[L.Callback]:
        """Return the method and the callback that freezes layers."""
        return [self, *self.frozen]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the frozen layers in eval mode."""
        for module in self.still:
            module.training = False  # only this module: the rest of the network stays in train mode
