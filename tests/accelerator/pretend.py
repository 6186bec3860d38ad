"""Runs a command of the project with all that would be on a GPU on a device that only pretends to be one.

Its memory is the host's, but PyTorch takes it for another place: tensors of both cannot meet, and
each wait for the device is counted. Started by the tests as a program:
``python pretend.py LIBRARY NOTES resident|streamed SCRIPT WORDS ...``; images live on the device or not.
"""

import functools
import json
import runpy
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.strategies import SingleDeviceStrategy

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "pretend"
waited: Counter[str] = Counter()


def register(library: str) -> None:
    """Make the device known to torch."""
    torch.ops.load_library(library)
    torch.utils.rename_privateuse1_backend(NAME)
    module: Any = types.ModuleType(f"torch.{NAME}")
    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.set_device = lambda device: None
    module._is_in_bad_fork = lambda: False
    module.manual_seed_all = lambda seed: None
    module.get_amp_supported_dtype = lambda: [torch.bfloat16]
    torch._register_device_module(NAME, module)


def waits() -> int:
    """Return how often something waited for the device."""
    return torch.ops.pretend.waits()


class Pretend(Accelerator):
    """What Lightning wants to know."""

    def setup_device(self, device: torch.device) -> None:
        """Do nothing."""

    def teardown(self) -> None:
        """Do nothing."""

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        """Return nothing."""
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        """Return the only one."""
        return [0]

    @staticmethod
    def get_parallel_devices(devices: Any) -> Any:
        """Return the only one."""
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        """Return one."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """Say yes."""
        return True

    @staticmethod
    def name() -> str:
        """Return its name."""
        return NAME


class Begin(L.Callback):
    """Comes last of all callbacks: from the first batch on, an epoch has nothing but steps."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the count; the first batch may have brought a new set to the device."""
        waited["steps"] += 1
        if batch_idx == 0:
            trainer.waits_before = waits()  # type: ignore[attr-defined]


class End(L.Callback):
    """Comes first of all callbacks: what others do at the end of an epoch may wait."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the waits of the steps, by what was trained."""
        method = getattr(pl_module, "method", (pl_module,))[0]
        waited[type(method).__name__] += waits() - trainer.waits_before  # type: ignore[attr-defined]


def watch_stack(module: types.ModuleType, stack: type, step: str, member: type, next_: str) -> None:
    """Count the waits of a stack's joint steps, without what its members do in between."""
    advance, joint = getattr(member, next_), getattr(stack, step)
    between = Counter[str]()

    @functools.wraps(advance)
    def advancing(self: Any) -> None:
        before = waits()
        advance(self)
        between["waits"] += waits() - before

    @functools.wraps(joint)
    def stepping(self: Any, *args: Any) -> Any:
        before, aside = waits(), between["waits"]
        out = joint(self, *args)
        number = waits() - before - (between["waits"] - aside)
        waited.update({"stacked steps": 1, f"stack of {module.__name__}": number})
        return out

    setattr(member, next_, advancing)
    setattr(stack, step, stepping)


def take_over() -> None:
    """Put the device in the place of a GPU."""
    from unlearn.training import engine
    from unlearn.training.stacked import pretraining, unlearning

    trainer = L.Trainer

    def on_device(*, accelerator: str, devices: int, callbacks: list[Any], **rest: Any) -> Any:
        strategy = SingleDeviceStrategy(device=torch.device(NAME, 0))
        return trainer(
            accelerator=Pretend(),  # type: ignore[arg-type]
            strategy=strategy, devices=1, callbacks=[End(), *callbacks, Begin()], **rest,
        )  # fmt: skip

    L.Trainer = on_device  # type: ignore[assignment, misc]
    of = engine.Engine
    of.device = property(lambda self: torch.device(NAME))  # type: ignore[assignment, misc]
    of.fits_memory = lambda self, size: RESIDENT  # type: ignore[assignment, method-assign]
    one, two = unlearning, pretraining
    watch_stack(one, one.StackedUnlearner, "_step_group", one.StackedRun, "next_step")
    watch_stack(two, two.StackedPretrainer, "_step_stack", two.MemberRun, "next_step")


if __name__ == "__main__":
    library, notes, where, script, *words = sys.argv[1:]
    RESIDENT = where == "resident"
    sys.path.insert(0, str(REPOSITORY))
    register(library)
    take_over()
    sys.argv = [script, *words]
    try:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    finally:
        Path(notes).write_text(json.dumps(waited))
