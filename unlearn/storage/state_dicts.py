"""Read and write state dicts safely."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from unlearn.core.files import check_plausible
from unlearn.core.verified_files import (
    check_file,
    check_seal,
    get_folder_key,
    set_aside,
    write_verified,
)

log = logging.getLogger(__name__)

# Prefixes of wrapped networks: Lightning modules, DDP, torch.compile.
PREFIXES = ("network.", "model.", "module.", "_orig_mod.")


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write parameters and buffers as a plain state dict, sealed."""
    write_verified(path, lambda part: torch.save(dict(state), part))


def load_state(path: Path) -> dict[str, Tensor]:
    """Return parameters and buffers from a state dict, a cached model or a Lightning checkpoint.

    A common prefix of ``PREFIXES`` is removed, so that the state fits the network.

    Raises:
        ValueError: If the file is absent, would run code when read, or holds none of these.
    """
    content: Any = read_checkpoint(path)
    for key in ("state", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not content or not is_state(content):
        raise ValueError(
            f"checkpoint {path} holds no state dict; allowed are a state dict, a model.pt of the "
            "checkpoint cache and a Lightning checkpoint"
        )
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in content)), None):
        content = {name.removeprefix(prefix): value for name, value in content.items()}
    return dict(content)


def read_checkpoint(path: Path) -> object:
    """Return the content of a checkpoint.

    Raises:
        ValueError: If the file is absent, does not match its seal, or would run code when read.
    """
    if not path.is_file():
        raise ValueError(f"checkpoint {path} {'is no file' if path.exists() else 'does not exist'}")
    try:
        check_plausible(path)
        check_seal(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"checkpoint {path} is broken: {_error_line(error)}") from error
    try:
        return _load_safely(path)
    except ValueError as error:
        raise ValueError(
            f"checkpoint {path} cannot be read safely: {error}; save model.state_dict(), which "
            "holds weights alone"
        ) from error


def epochs_done(path: Path) -> int:
    """Return the number of completed epochs in a resumable checkpoint; 0 if there is none.

    A checkpoint that is broken or cannot be read safely is set aside and logged.
    """
    if not path.exists():
        return 0
    try:
        check_file(path, get_folder_key(path))
        content: Any = _load_safely(path)
        return int(content["epoch"]) + 1
    except (ValueError, KeyError, TypeError) as error:
        reason, done = _error_line(error), set_aside(path)
        log.warning("training from the start: %s is broken (%s); %s", path, reason, done)
        return 0


def is_state(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Return whether an object is a dict of tensors by name."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def check_fits(state: Mapping[str, Tensor], network: nn.Module) -> None:
    """Check that a state has the names and shapes of a network, which stays unchanged.

    Raises:
        ValueError: If not; names the first difference.
    """
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    odd = sorted(n for n in own.keys() | theirs.keys() if own.get(n) != theirs.get(n))
    if odd:
        raise ValueError(
            f"{odd[0]} is {theirs.get(odd[0], 'absent')} in the file, "
            f"{own.get(odd[0], 'absent')} in the network"
        )


def _load_safely(path: Path) -> object:
    """Return the content of a file without running code in it.

    Raises:
        ValueError: If it cannot be read so, in one line.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # error types vary with the bytes of a broken file
        raise ValueError(_error_line(error)) from error


def _error_line(error: Exception) -> str:
    """Return the informative line of an error; torch's first line suggests unsafe loading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    blocked = [line for line in lines if "GLOBAL" in line]
    line = (blocked or lines or [""])[0].split(". ")[0]
    return f"{type(error).__name__}: {line[:200]}" if not isinstance(error, ValueError) else line
