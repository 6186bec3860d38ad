"""Trained models on disk, keyed by everything that determines their weights."""

import hashlib
import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

log = logging.getLogger(__name__)

UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        state: Parameters and buffers by name, on the CPU.
        records: Per-sample values noted in training, (N,) each.
        notes: Plain facts: seconds, images_seen.
    """

    state: dict[str, Tensor]
    records: dict[str, Tensor]
    notes: dict[str, Any]


class CheckpointCache:
    """One folder per model: ``identity.json`` and ``model.pt``, the latter written last, by rename."""

    def __init__(self, root: Path):
        """Keep the folder; it is made when something is stored."""
        self.root = root

    @staticmethod
    def key(identity: Mapping[str, Any]) -> str:
        """Return 16 hex digits that stand for an identity of plain JSON values."""
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def folder(self, identity: Mapping[str, Any]) -> Path:
        """Return the folder of a model, there or not."""
        return self.root / self.key(identity)

    def get(self, identity: Mapping[str, Any]) -> Trained | None:
        """Return the model, or None if it is absent or its file broken (which is logged)."""
        path = self.folder(identity) / "model.pt"
        if not path.exists():
            return None
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")
            return Trained(content["state"], content["records"], content["notes"])
        except UNREADABLE as error:
            log.warning("training again: broken checkpoint %s (%s)", path, type(error).__name__)
            return None

    def get_or_train(
        self, identity: Mapping[str, Any], train: Callable[[Path], Trained]
    ) -> tuple[Trained, bool]:
        """Return the model and whether it was there; one process trains, others wait for it.

        Args:
            identity: Plain JSON values.
            train: Called with the model's folder, where resumable checkpoints may be kept.
        """
        folder = self.folder(identity)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / f"{folder.name}.lock")
        try:
            lock.acquire(timeout=0.05)
        except Timeout:
            log.info("waiting for another process that trains this model")
            lock.acquire()
        try:
            trained = self.get(identity)
            if trained is not None:
                return trained, True
            trained = train(folder)
            text = json.dumps(identity, sort_keys=True, indent=1)
            atomically(folder / "identity.json", lambda part: part.write_text(text))
            atomically(folder / "model.pt", lambda part: torch.save(vars(trained), part))
            return trained, False
        finally:
            lock.release()

    def remove(self, identity: Mapping[str, Any]) -> None:
        """Forget a model."""
        folder = self.folder(identity)
        if folder.exists():
            with FileLock(self.root / f"{folder.name}.lock"):
                shutil.rmtree(folder)


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a file beside ``path``, then rename it: nobody ever reads half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write parameters and buffers as a plain state dict."""
    atomically(path, lambda part: torch.save(dict(state), part))


def load_state(path: Path) -> dict[str, Tensor]:
    """Return parameters and buffers from a state dict, a cached model or a Lightning checkpoint.

    Raises:
        ValueError: If the file is absent or holds none of these.
    """
    if not path.is_file():
        raise ValueError(f"checkpoint {path} does not exist")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read safely: {reason[:160]}") from error
    for key in ("state", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"checkpoint {path} holds no state dict")
    for prefix in ("model.", "network.", "_orig_mod."):
        if content and all(k.startswith(prefix) for k in content):
            content = {k.removeprefix(prefix): v for k, v in content.items()}
    return content
