"""Training under a mask: mask computation, restoring of entries, frozen statistics and notes.

Shapes: a mask has the shape of its parameter.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.base import set_batch_norm
from unlearn.methods.localization.base import Localizer
from unlearn.methods.localization.mask import Mask, fingerprint_model

HEAD_MODES = ("always", "masked", "only")


class FrozenBatchNorm(L.Callback):
    """Keep batch norm in eval mode during training."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Switch batch norm to eval mode."""
        set_batch_norm(pl_module.model, train=False)  # type: ignore[arg-type]


def compute_mask(
    localizer: Localizer, model: nn.Module, request: Request, budget: float | None
) -> Mask:
    """Return the mask of a strategy, with its provenance.

    Args:
        localizer: The strategy.
        model: The original model.
        request: Forget and retain set.
        budget: Share of all parameters, in (0, 1]; None: determined by the strategy.

    Raises:
        ValueError: If the mask does not match the model or exceeds the budget.
    """
    started, limit = time.perf_counter(), 1.0 if budget is None else budget
    may_move = localizer(model, request, limit)
    facts = {
        "strategy": type(localizer).__name__,
        "budget": budget,
        "model": fingerprint_model(model),
        "forget": hashlib.sha256(request.forget.index.cpu().numpy().tobytes()).hexdigest()[:16],
        "seconds": time.perf_counter() - started,
    }
    mask = Mask(may_move, facts)
    mask.check_matches_model(model)
    return mask.require_within_budget(limit)


def copy_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@torch.no_grad()
def restore_outside_mask(
    model: nn.Module, may_move: Mapping[str, Tensor], old: Mapping[str, Tensor]
) -> None:
    """Restore the old value of every frozen entry, in place.

    Args:
        model: The network.
        may_move: Bool tensors by name; parameters without one are frozen.
        old: Values of all parameters.

    Raises:
        ValueError: If the network's shape is no longer that of the old values.
    """
    parameters = dict(model.named_parameters())
    if {n: p.shape for n, p in parameters.items()} != {n: v.shape for n, v in old.items()}:
        raise ValueError("the method changes the network's shape, so it cannot be localized")
    for name, parameter in parameters.items():
        moving = may_move.get(name, torch.zeros((), dtype=torch.bool)).to(parameter.device)
        parameter.copy_(torch.where(moving, parameter, old[name]))


def match_parameter_names(mask: Mask, patterns: Sequence[str]) -> list[str]:
    """Return the names of the parameters that match a pattern.

    Raises:
        ValueError: If a pattern matches no parameter.
    """
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in mask):
            raise ValueError(f"mask_trainable: no parameter matches '{pattern}'")
    return [name for name in mask if any(fnmatch(name, p) for p in patterns)]


def build_training_mask(
    mask: Mask, head: Sequence[str], mode: str, always: Sequence[str] = ()
) -> Mask:
    """Return the mask of trained entries: the mask and, depending on ``mode``, the head.

    Args:
        mask: Mask of the strategy.
        head: Names of the head's parameters.
        always: Names of other parameters that are trained as a whole in every mode.
        mode: "always": the mask and the whole head; "masked": the mask; "only": the head.
    """
    free = {*always, *(head if mode != "masked" else ())}
    whole = Mask({name: torch.full_like(m, name in free) for name, m in mask.items()})
    return whole if mode == "only" else mask.union(whole)


def describe_mask(mask: Mask, moving: Mask, layers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the columns that describe a mask in the run's row.

    Args:
        mask: Mask of the strategy.
        moving: Mask of trained entries.
        layers: Names of the parameters of each layer.
    """
    by_layer = {
        title: round(share, 6) for title, share in mask.compute_group_shares(layers).items()
    }
    return {
        "localization/share_global": mask.compute_movable_share(),
        "localization/share_trained": moving.compute_movable_share(),
        "localization/parameters": mask.count_movable(),
        "localization/total": mask.count_total(),
        "localization/layers": json.dumps(by_layer),
    }
