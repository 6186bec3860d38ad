"""Pruning of channels by masks on the scales of batch norm.

A channel whose scale is 0 becomes the constant of its shift. Shapes: C channels of a layer.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unlearn.core.types import ImageSet

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(19))
"""Thresholds that are tried, 0 to 0.90."""


def find_scales(model: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """Return the batch-norm layers with scales, by name.

    Raises:
        ValueError: If the network has none.
    """
    kinds = nn.modules.batchnorm._BatchNorm
    found = {n: m for n, m in model.named_modules() if isinstance(m, kinds) and m.affine}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no batch norm, whose channels this method prunes; choose "
            "method=ft_trusted or fst"
        )
    return found


class ScaleMasks(nn.Module):
    """A factor per batch-norm channel, 1 at the start."""

    def __init__(self, model: nn.Module) -> None:
        """Create the masks for all batch-norm layers of a network, on its device."""
        super().__init__()
        self.names = list(find_scales(model))
        self.masks = nn.ParameterList(
            torch.ones_like(layer.weight) for layer in find_scales(model).values()
        )

    def compute_logits(
        self,
        model: nn.Module,
        image: Tensor,
        scale_noise: Sequence[Tensor] | None = None,
        shift_noise: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return logits (B, K) with scales g (m + d) and shifts b (1 + x); no gradient to ``model``.

        Args:
            model: The network, in its current mode.
            image: Network input, (B, C, H, W).
            scale_noise: d per layer, (C,); None: 0.
            shift_noise: x per layer, (C,); None: 0.
        """
        state = {name: p.detach() for name, p in model.named_parameters()}
        for i, name in enumerate(self.names):
            factor = self.masks[i] if scale_noise is None else self.masks[i] + scale_noise[i]
            state[f"{name}.weight"] = state[f"{name}.weight"] * factor
            if shift_noise is not None:
                state[f"{name}.bias"] = state[f"{name}.bias"] * (1 + shift_noise[i])
        return functional_call(model, state, (image,)).float()

    @torch.no_grad()
    def clip(self) -> None:
        """Clip the masks to [0, 1]."""
        for mask in self.masks:
            mask.clamp_(0, 1)

    def by_layer(self) -> dict[str, Tensor]:
        """Return the masks by name of their layer, (C,) each."""
        return {n: m.detach() for n, m in zip(self.names, self.masks, strict=True)}


@torch.no_grad()
def prune_scales(model: nn.Module, masks: Mapping[str, Tensor], threshold: float) -> int:
    """Set scales whose mask is at most ``threshold`` to 0, in place; return their number."""
    count = 0
    for name, mask in masks.items():
        gone = mask <= threshold
        model.get_submodule(name).weight[gone] = 0  # type: ignore[index]
        count += int(gone.sum())
    return count


def choose_threshold(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    data: ImageSet,
    tolerance: float,
    measure: Callable[[nn.Module, ImageSet], float],
) -> float:
    """Return the largest threshold at which the accuracy is at least (1 - tolerance) of the unpruned.

    Args:
        model: The unpruned network; unchanged afterwards.
        masks: Masks by layer.
        data: Validation images.
        tolerance: Accepted relative loss of accuracy, in [0, 1].
        measure: Returns the accuracy of a network on a set.
    """
    before = {name: model.get_submodule(name).weight.detach().clone() for name in masks}  # type: ignore[operator]
    least = (1 - tolerance) * measure(model, data)
    best, pruned = -1.0, 0
    for threshold in THRESHOLDS:
        count = prune_scales(model, masks, threshold)
        if count > pruned and measure(model, data) < least:
            break
        best, pruned = threshold, count
    with torch.no_grad():
        for name, value in before.items():
            model.get_submodule(name).weight.copy_(value)  # type: ignore[operator]
    return best
