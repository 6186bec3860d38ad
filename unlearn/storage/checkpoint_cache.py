"""Trained models on disk, keyed by everything that determines their weights.

A file is verified when it is read: its bytes by a SHA-256, its model by the key in its seal. One that
fails is renamed to ``model.pt.broken`` and trained again. Files of earlier versions have no seal: they
count if their records match the archive's checksums, and stay as they are.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from unlearn.core.files import check_plausible, write_text_atomically
from unlearn.core.job import CACHE_FORMAT, identify_code
from unlearn.core.verified_files import (
    check_file,
    get_folder_key,
    set_aside,
    write_verified,
)
from unlearn.storage.state_dicts import _error_line, _load_safely, check_fits, is_state

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """A trained model.

    Attributes:
        state: Parameters and buffers by name, on the CPU.
        records: Per-sample values recorded in training, (N,) each.
        notes: Plain facts: seconds, images_seen.

    Raises:
        ValueError: If a note is not a JSON value, which the safe loader cannot read.
    """

    state: dict[str, Tensor]
    records: dict[str, Tensor]
    notes: dict[str, Any]

    def __post_init__(self) -> None:
        """Check the content before the model is stored."""
        try:
            json.dumps(self.notes)
        except (TypeError, ValueError) as error:
            raise ValueError(f"notes must be plain JSON values: {error}") from error
        for name, part in (("state", self.state), ("records", self.records)):
            if not is_state(part):
                raise ValueError(f"{name} must be a dict of tensors by name")


class CheckpointCache:
    """One folder per model: ``identity.json``, then ``model.pt``, written last and by rename."""

    def __init__(self, root: Path) -> None:
        """Store the folder, which is created with the first model."""
        self.root = root

    @staticmethod
    def compute_key(identity: Mapping[str, Any]) -> str:
        """Return the key of an identity of plain JSON values, 16 hex digits.

        Raises:
            ValueError: If it holds something else.
        """
        try:
            content = {**identify_code(identity), "format": CACHE_FORMAT}
            text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        except TypeError as error:
            raise ValueError(f"identity must be plain JSON values: {error}") from error
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def model_folder(self, identity: Mapping[str, Any]) -> Path:
        """Return the folder of a model, existing or not."""
        return self.root / self.compute_key(identity)

    def load_model(self, identity: Mapping[str, Any]) -> TrainedModel | None:
        """Return the model; None if it is absent, or its file is broken (logged)."""
        path = self.model_folder(identity) / "model.pt"
        try:
            return _read_model(path)
        except ValueError as error:
            log.warning("training again: %s is broken (%s)", path, _error_line(error))
            return None

    def get_or_train(
        self,
        identity: Mapping[str, Any],
        train: Callable[[Path], TrainedModel],
        *,
        network: nn.Module | None = None,
    ) -> tuple[TrainedModel, bool]:
        """Return the model and whether it was cached; one process trains, others wait.

        Args:
            identity: Plain JSON values.
            train: Called with the model's folder, where resumable checkpoints may be kept.
            network: Network that a cached state must fit, or it is trained again.
        """
        folder = self.model_folder(identity)
        with contextlib.suppress(ValueError):  # without the lock: the cache may be read-only
            trained = _read_model(folder / "model.pt", network)
            if trained is not None:
                return trained, True
        lock = self._model_lock(folder)
        try:
            lock.acquire(timeout=0.05)
        except Timeout:
            log.info("waiting for another process that trains this model")
            lock.acquire()
        try:
            trained = _read_or_set_aside(folder, network)
            if trained is not None:
                return trained, True
            folder.mkdir(exist_ok=True)  # another process may have removed the folder
            for stale in folder.glob(".*.part"):  # left by a killed process
                stale.unlink()
            trained = train(folder)
            _store_model(folder, identity, trained)
            return trained, False
        finally:
            lock.release()

    def train_missing(
        self,
        identities: Sequence[Mapping[str, Any]],
        train: Callable[[dict[int, Path]], Iterable[tuple[int, TrainedModel]]],
    ) -> list[int]:
        """Train models together; each is stored and unlocked as soon as it is done.

        Args:
            identities: Plain JSON values, one per model.
            train: Called with the folders, by index, of the models that are absent and that no
                other process trains; returns models by index, possibly not all.

        Returns:
            Indices of the trained models.
        """
        mine: dict[int, Path] = {}
        done: list[int] = []
        with contextlib.ExitStack() as held:
            locks: dict[int, FileLock] = {}
            for number, identity in enumerate(identities):
                folder = self.model_folder(identity)
                lock = self._model_lock(folder)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                locks[number] = lock
                held.callback(lock.release)
                if _read_or_set_aside(folder) is None:
                    folder.mkdir(exist_ok=True)
                    mine[number] = folder
            for number, trained in train(mine):
                _store_model(mine[number], identities[number], trained)
                locks[number].release()
                done.append(number)
        return done

    def remove_model(self, identity: Mapping[str, Any]) -> None:
        """Delete a model."""
        folder = self.model_folder(identity)
        with self._model_lock(folder):
            if folder.exists():
                shutil.rmtree(folder)

    def _model_lock(self, folder: Path) -> FileLock:
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / f"{folder.name}.lock")


def _read_model(path: Path, network: nn.Module | None = None) -> TrainedModel | None:
    """Return the model in a file; None if there is none.

    Raises:
        ValueError: If it is broken, another model, or does not fit the network.
    """
    if not path.exists():
        return None
    try:
        check_plausible(path)
    except OSError as error:
        raise ValueError(str(error)) from error
    check_file(path, get_folder_key(path))
    content = _load_safely(path)
    if not isinstance(content, dict) or not content.keys() >= {"state", "records", "notes"}:
        raise ValueError("no state, records and notes")
    model = TrainedModel(content["state"], content["records"], content["notes"])
    if network is not None:
        check_fits(model.state, network)
    return model


def _read_or_set_aside(folder: Path, network: nn.Module | None = None) -> TrainedModel | None:
    """Return the model of a folder; None if it is absent or broken. The caller holds the lock."""
    path = folder / "model.pt"
    try:
        return _read_model(path, network)
    except ValueError as error:
        reason, done = _error_line(error), set_aside(path)
        log.warning("training again: %s is broken (%s); %s", path, reason, done)
        return None


def _store_model(folder: Path, identity: Mapping[str, Any], trained: TrainedModel) -> None:
    text = json.dumps(identity, sort_keys=True, indent=1)
    # A float of numpy passes for JSON but not for the safe loader: through text it becomes plain.
    content = vars(trained) | {"notes": json.loads(json.dumps(trained.notes))}
    write_text_atomically(folder / "identity.json", text)
    write_verified(folder / "model.pt", lambda part: torch.save(content, part), folder.name)
