"""A user's checkpoint: matched to a network by name, and written back in the same form.

Plain state dicts, dictionaries that hold one (Lightning's among them) and safetensors are read; no
code in a file is run.
"""

import copy
import functools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlearn.core.files import write_atomically
from unlearn.storage.state_dicts import is_state, read_checkpoint

log = logging.getLogger(__name__)

COUNTER = "num_batches_tracked"
"""Not saved by older torch, and not used here."""


@dataclass(frozen=True)
class UserCheckpoint:
    """A checkpoint that fits a network.

    Attributes:
        path: The file.
        content: Its content; everything except the network's weights stays unchanged.
        key_path: Keys of the nested state dict; empty if the file is one.
        file_name_of: The network's names to the file's.
        metadata: Of a safetensors file.
    """

    path: Path
    content: Any
    key_path: tuple[str, ...]
    file_name_of: Mapping[str, str]
    metadata: Mapping[str, str] | None

    @property
    def healed_file_name(self) -> str:
        """Return the name of the healed file; its suffix gives the form."""
        return "healed" + (self.path.suffix or ".pt")

    def read_state(self) -> dict[str, Tensor]:
        """Return the file's state dict, by the file's names."""
        return functools.reduce(lambda part, key: part[key], self.key_path, self.content)

    def describe_form(self) -> str:
        """Return a description of the file's form."""
        form = "safetensors" if self.metadata is not None else "state dict"
        within = f" within '{'.'.join(self.key_path)}'" if self.key_path else ""
        name, own = next(iter(self.file_name_of.items()))
        prefix = own.removesuffix(name)
        return form + within + (f", names begin with '{prefix}'" if prefix else "")

    def load_into(self, network: nn.Module) -> None:
        """Load the weights into the network."""
        state = self.read_state()
        network.load_state_dict(
            {k: state[own] for k, own in self.file_name_of.items()}, strict=False
        )

    def write_weights(self, path: Path, state: Mapping[str, Tensor]) -> None:
        """Write new weights in the file's form: same names, types and wrapping, by rename.

        Args:
            path: The new file.
            state: Parameters and buffers by the network's names, on the CPU.
        """
        content = copy.copy(self.content)
        part = content
        for key in self.key_path:
            part[key] = copy.copy(part[key])
            part = part[key]
        for name, own in self.file_name_of.items():
            part[own] = state[name].to(part[own].dtype).contiguous().clone()
        if self.metadata is None:
            return write_atomically(path, lambda file: torch.save(content, file))
        from safetensors.torch import save_file

        metadata = dict(self.metadata)
        write_atomically(path, lambda file: save_file(content, file, metadata=metadata))


def match_checkpoint(path: Path, network: nn.Module, what: str) -> UserCheckpoint:
    """Read a checkpoint and find the network's weights in it.

    Args:
        path: The file.
        network: Network that it must fit.
        what: Name of the network in messages.

    Raises:
        ValueError: If it cannot be read safely or does not fit; lists differing names.
    """
    content, metadata = _read_content(path)
    return match_content(content, metadata, path, network, what)


def match_content(
    content: Any, metadata: dict[str, str] | None, path: Path, network: nn.Module, what: str
) -> UserCheckpoint:
    """Find the network's weights in the content of a checkpoint; see ``match_checkpoint``.

    Args:
        content: Content of the file.
        metadata: Of a safetensors file; None of others.
        path: The file, or its name in messages.
        network: Network that it must fit.
        what: Name of the network in messages.

    Raises:
        ValueError: If it does not fit.
    """
    own = network.state_dict()
    wanted = list(own)
    best: tuple[int, tuple[str, ...], str] = (0, (), "")
    states = list(_find_states(content))
    for place, state in states:
        for prefix in _find_prefixes(state, wanted):
            count = sum(prefix + name in state for name in wanted)
            if count > best[0]:
                best = (count, place, prefix)
    if not states:
        raise ValueError(
            f"checkpoint {path} holds no state dict; allowed are a state dict, a dictionary that "
            "holds one (such as Lightning's) and safetensors"
        )
    count, place, prefix = best
    state = dict(states)[place if count else states[0][0]]
    problems = _list_problems(own, state, prefix)
    if problems:
        raise ValueError(f"checkpoint {path} does not fit {what}: {'; '.join(problems)}")
    other = [name for name in state if not name.startswith(prefix)]
    if other:
        log.info("checkpoint %s: entries kept unchanged: %s", path, _format_names(other))
    names = {name: prefix + name for name in wanted if prefix + name in state}
    return UserCheckpoint(path, content, place, names, metadata)


def _read_content(path: Path) -> tuple[Any, dict[str, str] | None]:
    if path.suffix != ".safetensors":
        return read_checkpoint(path), None
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ValueError(f"checkpoint {path} needs safetensors: pip install safetensors") from error
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except Exception as error:  # broken files raise the library's own errors
        raise ValueError(f"checkpoint {path} cannot be read: {error}") from error


def _find_states(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield every state dict in a file with its keys, the outermost first."""
    if not isinstance(content, dict) or not content:
        return
    if is_state(content):
        yield (), content
        return
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, dict) and value and is_state(value):
            yield (key,), value


def _find_prefixes(state: Mapping[str, Tensor], wanted: list[str]) -> list[str]:
    """Return possible prefixes of the network's names in the file, the shortest first."""
    found = {own.removesuffix(n) for n in wanted[:3] + wanted[-3:] for own in state
             if own == n or own.endswith("." + n)}  # fmt: skip
    return sorted(found, key=len)


def _list_problems(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str
) -> list[str]:
    names = {prefix + name: value for name, value in own.items()}
    missing = [n for n in names if n not in state and not n.endswith(COUNTER)]
    unknown = [n for n in state if n.startswith(prefix) and n not in names]
    shapes = [
        f"{n} is {tuple(state[n].shape)} in the file, {tuple(value.shape)} in the network"
        for n, value in names.items()
        if n in state and state[n].shape != value.shape
    ]
    out = []
    if missing:
        out.append(f"missing in the file: {_format_names(missing)}")
    if unknown:
        out.append(f"unknown to the network: {_format_names(unknown)}")
    if shapes:
        out.append(_format_names(shapes))
    return out


def _format_names(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
