"""Deepest and shallowest layers, from the output or from the input (arXiv 2412.02432, 2201.06640).

Data-free. Differs: layers are in the order of execution; a budget that ends within a layer selects
whole channels in index order, since the paper does not describe this case.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.base import check_option
from unlearn.methods.localization.mask import count_allowed_parameters
from unlearn.models.layer_groups import example_images, group_by_block, group_by_layer
from unlearn.models.layers import get_trainable_parameters

Shapes = Mapping[str, torch.Size]


def select_whole_layers(
    groups: Sequence[Sequence[str]], shape: Shapes, count: int, *, partial: str
) -> dict[str, Tensor]:
    """Return the mask of the first layers that fit into ``count`` entries.

    Args:
        groups: Names of the parameters of each layer, in the order of preference.
        shape: Shape of every parameter.
        count: Maximum number of entries to select.
        partial: First layer that does not fit: select its leading channels (of all its parameters
            together) while they fit ("channels"), or nothing ("none").

    Raises:
        ValueError: If nothing fits.
    """
    masks = {name: torch.zeros(s, dtype=torch.bool) for name, s in shape.items()}
    left = count
    for group in groups:
        size = sum(shape[n].numel() for n in group)
        if size > left:
            if partial == "channels":
                left -= _select_slices(masks, group, left)
            break
        for name in group:
            masks[name].fill_(True)
        left -= size
    if left == count:
        raise ValueError(
            f"the budget of {count} parameters is less than the first "
            f"{'channel' if partial == 'channels' else 'layer'}; increase the budget"
        )
    return masks


def _select_slices(masks: dict[str, Tensor], group: Sequence[str], left: int) -> int:
    """Select slices while they fit; return the number of selected entries."""
    used = 0
    for part in _iterate_slices(masks, group):
        if used + part.numel() > left:
            break
        part.fill_(True)
        used += part.numel()
    return used


def _iterate_slices(masks: Mapping[str, Tensor], group: Sequence[str]) -> Iterator[Tensor]:
    """Yield the slices along dimension 0, ordered by index."""
    flat = [masks[n] if masks[n].ndim else masks[n].view(1) for n in group]
    for index in range(max(len(m) for m in flat)):
        yield from (m[index] for m in flat if index < len(m))


class Depth:
    """The deepest or the shallowest layers."""

    def __init__(self, *, order: str, grouping: str, num_layers: int | None, partial: str) -> None:
        """Store the options.

        Args:
            order: "deepest" starts at the output, "shallowest" at the input.
            grouping: "layer": a convolution or linear map with its norm; "block": see
                ``group_by_block``.
            num_layers: Number of whole layers to select, instead of a budget; None: use the budget.
            partial: See ``select_whole_layers``.

        Raises:
            ValueError: If an option is out of range.
        """
        check_option("order", order, ("deepest", "shallowest"))
        check_option("grouping", grouping, ("layer", "block"))
        check_option("partial", partial, ("channels", "none"))
        if num_layers is not None and num_layers < 1:
            raise ValueError(f"localization.num_layers must be at least 1, got {num_layers}")
        self.order = order
        self.groups = group_by_layer if grouping == "layer" else group_by_block
        self.num_layers = num_layers
        self.partial = partial

    @property
    def needs_budget(self) -> bool:
        """Return whether the selection depends on the budget."""
        return self.num_layers is None

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return the mask, bool by parameter name.

        Raises:
            ValueError: If the network has fewer layers, or the budget is below the first channel.
        """
        shape = {n: p.shape for n, p in get_trainable_parameters(model).items()}
        groups = list(self.groups(model, example_images(request)).values())
        if self.order == "deepest":
            groups.reverse()
        count = count_allowed_parameters(sum(s.numel() for s in shape.values()), budget)
        if self.num_layers is not None:
            if self.num_layers > len(groups):
                raise ValueError(
                    f"localization.num_layers must be in 1..{len(groups)}, the layers of "
                    f"{type(model).__name__}, got {self.num_layers}"
                )
            groups = groups[: self.num_layers]
        return select_whole_layers(groups, shape, count, partial=self.partial)
