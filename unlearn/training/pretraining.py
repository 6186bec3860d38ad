"""Pre-training of the original model on the data as received.

With several devices, one process per device trains on a part of every batch (DDP or FSDP).

Shapes: B batch, N samples.
"""

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from unlearn.core.types import ImageSet
from unlearn.scoring.base import Recorder
from unlearn.storage.state_dicts import epochs_done
from unlearn.training.callbacks import EpochLog, EpochOrder, ResumeCheckpoint
from unlearn.training.classifier import ClassifierModule
from unlearn.training.distributed import SINGLE_PROCESS, Rank, run_distributed
from unlearn.training.engine import Engine, enable_determinism, silence_lightning, use_torch_seed
from unlearn.training.loader import Augmentation, ResidentLoader
from unlearn.training.recipe import Pretraining
from unlearn.training.sharding import check_sharding, gather_weights


def pretrain(
    model: nn.Module,
    data: ImageSet,
    recipe: Pretraining,
    engine: Engine,
    *,
    augment: Augmentation | None,
    seed: int,
    loggers: Sequence[Logger] = (),
    recorders: Sequence[Recorder] = (),
    resume: Path | None = None,
    title: str = "training",
) -> dict[str, Any]:
    """Train ``model`` in place.

    Args:
        model: On any device.
        data: The training set as received.
        recipe: Epochs, batch size, optimizer, schedule.
        engine: Device, precision and trainer options; with several devices, one process each.
        augment: Batch augmentation.
        seed: Seed of order, augmentation and random layers.
        loggers: Loggers of the curves.
        recorders: Callbacks that record values per sample.
        resume: File of the resumable checkpoint; used if it is intact, removed at the end.
        title: Title of the progress bar.

    Returns:
        Notes: seconds, images_seen.

    Raises:
        CollapsedError: If the loss is not finite.
        ValueError: If the training cannot run on several devices.
    """
    if recipe.objective is not None:
        _check_objective(engine, recorders)
    plan = {
        "recipe": recipe, "engine": engine, "augment": augment, "seed": seed, "loggers": loggers,
        "recorders": recorders, "resume": resume, "title": title,
    }  # fmt: skip
    if resume is not None:
        epochs_done(resume)  # sets a broken one aside
    _check_share(data, recipe, engine, recorders)
    if engine.devices == 1:
        return _train_rank(SINGLE_PROCESS, model, data, **plan)[0]
    if engine.shard_weights:
        check_sharding(model)
    notes, states = run_distributed(
        _as_rank, model.cpu(), data.to("cpu"), plan,
        count=engine.devices, threads=torch.get_num_threads(),
        backend="nccl" if engine.device.type == "cuda" else "gloo",
    )  # fmt: skip
    for recorder, state in zip(recorders, states, strict=True):
        recorder.load_state_dict(state)
    model.eval()
    return notes


def _check_objective(engine: Engine, recorders: Sequence[Recorder]) -> None:
    """Check that a training with an objective of its own is possible.

    Raises:
        ValueError: If it runs on several devices, or values are recorded during it.
    """
    for key in ("devices", "accumulate"):
        if getattr(engine, key) != 1:
            raise ValueError(f"pretraining with an objective of its own needs trainer.{key}=1")
    if recorders:
        raise ValueError(
            f"the score's recorder {recorders[0].name} needs pretraining with cross-entropy: "
            "pretraining=standard"
        )


def _check_share(
    data: ImageSet, recipe: Pretraining, engine: Engine, recorders: Sequence[Recorder]
) -> None:
    """Check that the training can run in several processes, or in micro-batches.

    Raises:
        ValueError: If a batch is too small, or a recorder needs whole batches.
    """
    for key, parts in (("devices", engine.devices), ("accumulate", engine.accumulate)):
        if parts == 1:
            continue
        least = 2 * engine.devices * (engine.accumulate if key == "accumulate" else 1)
        for name, size in (("batch_size", recipe.batch_size), ("the training set", len(data))):
            if size < least:
                raise ValueError(
                    f"{name} must be at least {least} for trainer.{key}={parts} (batch norm needs "
                    f"two images in each part of a batch), got {size}"
                )
        alone = [recorder.name for recorder in recorders if not recorder.joins]
        if alone:
            raise ValueError(
                f"the score's recorder {alone[0]} needs whole batches: set trainer.{key}=1"
            )


def _as_rank(
    rank: Rank, model: nn.Module, data: ImageSet, plan: dict[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    """Train as one of several ranks; rank 0 writes the weights to ``model`` in shared memory.

    Returns:
        Notes, and the state of each recorder over all ranks.
    """
    own = copy.deepcopy(model)
    engine: Engine = plan["engine"]
    if engine.device.type == "cuda":
        enable_determinism()
    if engine.fits_memory(data.image.numel()):
        data = data.to(engine.device)
    if rank.number:  # only rank 0 writes
        plan = plan | {"loggers": ()}
    notes, states = _train_rank(rank, own, data, **plan)
    weights = gather_weights(own)
    if rank.number == 0:
        model.load_state_dict(weights)
    return notes, states


def _train_rank(
    rank: Rank,
    model: nn.Module,
    data: ImageSet,
    *,
    recipe: Pretraining,
    engine: Engine,
    augment: Augmentation | None,
    seed: int,
    loggers: Sequence[Logger],
    recorders: Sequence[Recorder],
    resume: Path | None,
    title: str,
) -> tuple[dict[str, Any], list[Any]]:
    """Train in one process, alone or as a rank; see ``pretrain``."""
    started = time.perf_counter()
    sharded = engine.shard_weights and rank != SINGLE_PROCESS
    engine.place_model(model).train()
    if sharded:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    shared = {"rank": rank, "parts": engine.accumulate}
    loader = ResidentLoader(
        data,
        batch_size=recipe.batch_size,
        augment=augment,
        seed=seed,
        device=engine.device,
        **shared,
    )
    log = EpochLog(loggers)
    steps = loader.count_batches()
    module = ClassifierModule(model, recipe, recipe.epochs * steps, log)
    if engine.accumulate > 1:
        log.steps, module.parts = steps, engine.accumulate
    _start_objective(module, data, augment, engine, seed)
    module.sharded = sharded
    module._compiled = (engine.compile_if_enabled(model),)
    module.recorded = bool(recorders)
    for recorder in recorders:
        recorder.start_recording(data, recipe.epochs)
    callbacks: list[L.Callback] = [log, EpochOrder(loader), *recorders]
    if resume is not None:
        callbacks.append(ResumeCheckpoint(resume, engine.checkpoint_seconds))
    trainer = engine.build_trainer(
        max_epochs=recipe.epochs,
        precision=engine.resolved_precision(),
        callbacks=callbacks,
        loggers=loggers,
        title=title,
        total=recipe.epochs,
        **shared,
    )
    start = str(resume) if resume is not None and resume.exists() else None
    with use_torch_seed(seed + rank.number), silence_lightning():
        trainer.fit(module, train_dataloaders=loader, ckpt_path=start, weights_only=True)
    states = [_on_cpu(r.state_dict()) for r in recorders] if rank != SINGLE_PROCESS else []
    if resume is not None and rank.number == 0:
        resume.unlink(missing_ok=True)
    if not sharded:
        engine.place_model(model)  # Lightning moves it to the CPU
    model.eval()
    seconds = module.seconds_before + time.perf_counter() - started
    notes = {"seconds": seconds, "images_seen": recipe.epochs * len(data)}
    return notes | {f"seconds/{r.name}": r.seconds for r in recorders}, states


def _start_objective(
    module: ClassifierModule,
    data: ImageSet,
    augment: Augmentation | None,
    engine: Engine,
    seed: int,
) -> None:
    """Start the recipe's objective, if it has one."""
    if module.objective is None:
        return
    module.objective.start(module.model, data, seed=seed)
    module.objective.augment = augment
    module.objective.to(engine.device).train()


def _on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.cpu() if isinstance(v, Tensor) else v for k, v in state.items()}
