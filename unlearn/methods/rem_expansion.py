"""The expanded network of REM (arXiv 2505.17730, step 3.1)."""

from typing import Any

from torch import nn

from unlearn.core.types import Request
from unlearn.methods.rem_options import REMOptions
from unlearn.models.expansion.expanded import (
    Expanded,
    expand_network,
    is_native,
    remove_extra_channels,
)


def build_expanded_model(
    model: nn.Module, request: Request, options: REMOptions, seed: int
) -> nn.Module:
    """Return the network with extra channels, or without them if ``options.expand`` is false.

    Args:
        model: The original; one that was pre-trained with extra channels keeps them.
        request: Forget and retain set: each sample gets a mask.
        options: REM's options.
        seed: Seed of new weights and masks.
    """
    if not options.expand:
        return remove_extra_channels(model)
    if isinstance(model, Expanded):
        model.check_indices(request.get_all_indices())
        if not model.density:  # trained with inactive channels: activate them
            model.redraw_masks(density=options.density, seed=seed)
        return model
    samples = request.get_table_size()
    image = next(request.forget.batches(2)).image
    how: Any = {"num_samples": samples, "density": options.density, "seed": seed}
    if is_native(model):
        return expand_network(model, ratio=options.ratio, **how)
    from unlearn.models.expansion.any_architecture import grow_network

    return grow_network(model, image, ratio=options.ratio, **how)
