"""Files of initial weights, which need not fit a network as a whole."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unlearn.storage.user_checkpoint import _find_prefixes, _find_states, _read_content


def read_initial_weights(source: Path | dict[str, Any], network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a file or a dictionary by the network's names, without its prefix.

    Args:
        source: A state dict, or a file of one: alone, in a dictionary (Lightning's), or safetensors.
        network: The network that they are for.

    Raises:
        ValueError: If it cannot be read or holds no state dict.
    """
    content = _read_content(source)[0] if isinstance(source, Path) else dict(source)
    wanted = list(network.state_dict())
    best: tuple[int, dict[str, Tensor]] = (-1, {})
    for _, state in _find_states(content):
        for prefix in _find_prefixes(state, wanted) or [""]:
            found = {
                name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)
            }
            count = sum(name in found for name in wanted)
            if count > best[0]:
                best = (count, found)
    if best[0] < 0:
        raise ValueError(f"init={source} holds no state dict")
    return best[1]
