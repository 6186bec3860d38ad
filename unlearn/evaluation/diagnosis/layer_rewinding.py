"""Layer rewinding: accuracy with one layer reset to an earlier state (arXiv 2307.09542).

Re-implemented. Only parameters are replaced; buffers (running statistics) stay.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.evaluation.diagnosis.layer_gradients import Groups
from unlearn.models.inference import compute_accuracy


@torch.no_grad()
def rewind_parameters(
    model: nn.Module, earlier: Mapping[str, Tensor], names: Sequence[str]
) -> nn.Module:
    """Return a copy of the model with some parameters reset to earlier values.

    Args:
        model: The trained network.
        earlier: Parameters by name, of the same network.
        names: Names of the parameters to replace.

    Raises:
        ValueError: If the earlier network differs in its parameters.
    """
    new = copy.deepcopy(model)
    parameters = dict(new.named_parameters())
    for name in names:
        if name not in earlier or earlier[name].shape != parameters[name].shape:
            raise ValueError(f"diagnosis.rewind_to: '{name}' is not of the same network")
        parameters[name].copy_(earlier[name])
    return new


def measure_accuracies(model: nn.Module, request: Request) -> dict[str, float]:
    """Return the accuracy on the "forget" and the "retain" set, labels as given, in [0, 1]."""
    return {
        "forget": compute_accuracy(model, request.forget),
        "retain": compute_accuracy(model, request.retain),
    }


def measure_rewinding(
    model: nn.Module, earlier: Mapping[str, Tensor], request: Request, groups: Groups
) -> dict[str, dict[str, float]]:
    """Return per layer the accuracies of the model with this layer rewound and all others kept."""
    return {
        layer: measure_accuracies(rewind_parameters(model, earlier, names), request)
        for layer, names in groups.items()
    }
