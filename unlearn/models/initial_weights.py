"""Weights that a network's training began from, such as those of a pre-trained network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MIN_SHARE = 0.5
"""Least share of a network's tensors that initial weights must hold."""


class InitialWeights:
    """Tensors by name; copies of a network share them."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """Store the tensors."""
        self.state = dict(state)

    def __deepcopy__(self, memo: Any) -> "InitialWeights":
        """Return the same object."""
        return self

    @torch.no_grad()
    def load_into(self, network: nn.Module) -> list[str]:
        """Copy the tensors whose name and shape fit; return the names of those that stay as they are."""
        own = network.state_dict()
        absent = []
        for name, value in own.items():
            found = self.state.get(name)
            if found is None or found.shape != value.shape:
                absent.append(name)
            else:
                value.copy_(found)
        return [name for name in absent if not name.endswith("num_batches_tracked")]


def start_from(network: nn.Module, state: Mapping[str, Tensor], what: str) -> list[str]:
    """Let a network, and every network that is built anew from it, start from given weights.

    Args:
        network: The network; its tensors of the same name and shape are overwritten.
        state: Initial weights by name.
        what: Their name in messages.

    Returns:
        Names of the tensors that are drawn at random instead, such as those of the head.

    Raises:
        ValueError: If less than half of the network's tensors are among them.
    """
    initial = InitialWeights(state)
    absent = initial.load_into(network)
    total = len([name for name in network.state_dict() if not name.endswith("num_batches_tracked")])
    if len(absent) > (1 - MIN_SHARE) * total:
        raise ValueError(
            f"{what} holds {total - len(absent)} of {total} tensors of {type(network).__name__}, too few "
            f"to start from; absent or of another shape: {', '.join(absent[:3])}, ..."
        )
    network.initial_weights = initial  # type: ignore[assignment]
    return absent


def load_initial_weights(network: nn.Module, like: nn.Module) -> None:
    """Load the initial weights of ``like``, if it has any, into a network that was built anew."""
    initial = getattr(like, "initial_weights", None)
    if isinstance(initial, InitialWeights):
        initial.load_into(network)
        network.initial_weights = initial  # type: ignore[assignment]
