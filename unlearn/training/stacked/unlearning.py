"""Stacked unlearning: several cells as one program, each with its own method, data and optimizer.

A cell runs through its epochs as in Lightning, but pauses before each step. Cells whose next steps
are of the same kind (phase, batch sizes, layer modes) take them together: parameters and buffers
are stacked, the method's loss is mapped over them (``torch.func.vmap``), with one backward pass.
Shapes: M cells, B batch.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from unlearn.core.types import Batch, Request
from unlearn.methods.base import UnlearningMethod
from unlearn.training.stacked.engine import StackEngine, map_losses
from unlearn.training.unlearning import LightningFit, UnlearningModule

SERVED = {
    "on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_before_optimizer_step",
    "on_train_batch_end", "on_train_epoch_end", "on_train_end",
}  # fmt: skip
"""Hooks supported in a stack."""


def find_stack_obstacle(method: Any) -> str | None:
    """Return why a method cannot be stacked, or None."""
    if not isinstance(method, UnlearningMethod) or not method.stackable:
        return f"{type(method).__name__} is not stackable"
    if type(method).unlearn is not UnlearningMethod.unlearn:
        return f"{type(method).__name__} overrides unlearn()"
    own = {
        name
        for part in method.callbacks()
        for name in dir(L.Callback)
        if name.startswith("on_") and getattr(type(part), name) is not getattr(L.Callback, name)
    }
    return f"{type(method).__name__} has unsupported hooks {own - SERVED}" if own - SERVED else None


class TrainerStub:
    """The part of a Lightning trainer that hooks can use in a stack."""

    is_global_zero = True

    def __init__(self, max_epochs: int) -> None:
        """Initialise the state before the first epoch."""
        self.max_epochs, self.current_epoch, self.should_stop = max_epochs, 0, False
        self.strategy = self

    def reduce(self, value: Tensor, reduce_op: str) -> Tensor:
        """Return the value: there is one process."""
        return value

    def is_finished(self) -> bool:
        """Return whether training has ended."""
        return self.should_stop or 0 <= self.max_epochs <= self.current_epoch


class LossModule(nn.Module):
    """A method's loss as a module with all tensors that it reads."""

    def __init__(self, method: UnlearningMethod, module: UnlearningModule) -> None:
        """Register the model and the modules that the loss reads."""
        super().__init__()
        self.module = module
        self.read = nn.ModuleDict(method.get_loss_modules())
        self._method = (method,)

    def forward(self, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss, a scalar."""
        return self._method[0].loss(self.module.forward, batch)

    def constant_buffers(self) -> set[str]:
        """Return the names of buffers that no step writes to, such as masks."""
        return {
            f"{path}.{name}"
            for path, part in self.named_modules()
            for name in part._buffers
            if path.startswith("read.") or name in part._non_persistent_buffers_set
        }


class StackedRun:
    """Training state of one cell.

    Attributes:
        pending: Batch of the next step; None at the end.
        kind: Key of the next step; steps with equal keys can be taken together.
        seconds: Time of individual work plus the share of joint steps.
        images_seen: Number of images in all batches.
        error: Error that ended the cell; None if there was none.
    """

    def __init__(
        self, method: UnlearningMethod, model: nn.Module, request: Request, fit: LightningFit
    ) -> None:
        """Prepare the model and fetch the first batch."""
        self.method, self.request, self.fit = method, request, fit
        self.pending: Mapping[str, Batch] | None = None
        self.kind: tuple[Any, ...] = ()
        self.seconds = 0.0
        self.error: Exception | None = None
        self.tensors: dict[str, Tensor] = {}
        self.still: set[str] = set()
        self.images_seen = 0
        self._steps: Iterator[Mapping[str, Batch]] = iter(())
        self._time_call(lambda: self._prepare_method(model))
        self.next_step()

    def _prepare_method(self, model: nn.Module) -> None:
        self.model = self.method.prepare(model, self.request)
        if self.method.needs_training():
            self.loader, self.module, self.callbacks = self.fit.build_parts(
                self.method, self.model, self.request
            )
            self.module.configure_optimizers()
            self.cell = LossModule(self.method, self.module)
            self.stage = TrainerStub(self.method.max_epochs())
            self._steps = self._iterate_batches()

    def _iterate_batches(self) -> Iterator[Mapping[str, Batch]]:
        stage = self.stage
        self._call_hook("on_train_start")
        while not stage.is_finished():
            self._call_hook("on_train_epoch_start")
            self.tensors = dict(self.cell.named_parameters()) | dict(self.cell.named_buffers())
            self.still = self.cell.constant_buffers() | {
                n for n in self.tensors if n.startswith("read.")
            }
            modes = self._collect_modes()
            for number, batch in enumerate(self.loader):
                self._call_hook("on_train_batch_start", batch, number)
                sizes = tuple((name, len(part.label)) for name, part in batch.items())
                self.kind = (self.method.get_optimizer_index(), sizes, modes)
                yield batch
                self._call_hook("on_train_batch_end", None, batch, number)
                if stage.should_stop:
                    break
            self._call_hook("on_train_epoch_end")
            stage.current_epoch += 1
        self._call_hook("on_train_end")

    def _call_hook(self, hook: str, *rest: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self.stage, self.module, *rest)

    def step_optimizer(self, phase: int) -> None:
        """Step the optimizer of a phase; gradients must be set."""
        optimizer = self.module.own[phase]
        self._call_hook("on_before_optimizer_step", optimizer)
        optimizer.step()

    def _collect_modes(self) -> tuple[Any, ...]:
        skeletons = getattr(self.model, "_skeleton", ())
        modes = [m.training for part in (self.model, *skeletons) for m in part.modules()]
        return (*modes, *(tuple(t.shape) for t in self.tensors.values()))

    def next_step(self) -> None:
        """Advance to the next step; an error or a loss that is not finite ends the cell."""
        self.pending = None

        def fetch_step() -> None:
            self.pending = next(self._steps, None)

        self._time_call(fetch_step)

    def _time_call(self, call: Callable[[], None]) -> None:
        started = time.perf_counter()
        try:
            call()
        except Exception as error:  # does not affect other cells; reported by the caller
            self.error = error
        self.seconds += time.perf_counter() - started

    def finish_run(self) -> nn.Module | None:
        """Return the unlearned model; None if an error ended the cell."""
        out: list[nn.Module] = []
        if self.error is None:
            self._time_call(lambda: out.append(self.method.finish(self.model.eval())))
        return out[0] if out else None


class StackedUnlearner(StackEngine[StackedRun]):
    """Unlearn cells to the end."""

    def __init__(
        self, runs: Sequence[StackedRun], cast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        """Store the cells and the autocast context of a step."""
        super().__init__(runs, cast)
        self._constant: dict[tuple[int, ...], dict[str, tuple[Any, Tensor]]] = {}

    def _step_group(self, group: Sequence[StackedRun]) -> None:
        started = time.perf_counter()
        phases = [run.module.begin_step() for run in group]
        with self.cast():
            losses = self._compute_losses(group)
        for run in group:
            run.module.clear_gradients()
        losses.sum().backward()
        for run, phase, loss in zip(group, phases, losses.detach(), strict=True):
            assert run.pending is not None
            run.step_optimizer(phase)
            run.module.count_step(loss, run.pending)
            run.images_seen = run.module.epoch_log.images
        for run in group:
            run.seconds += (time.perf_counter() - started) / len(group)
        for run in group:
            run.next_step()

    def _compute_losses(self, group: Sequence[StackedRun]) -> Tensor:
        """Return each cell's loss, (M,)."""
        batches = [run.pending for run in group]
        if len(group) == 1:
            return group[0].cell(batches[0])[None]
        leaves = zip(*(pytree.tree_leaves(batch) for batch in batches), strict=True)
        joined = [torch.stack(parts) for parts in leaves]
        batch = pytree.tree_unflatten(joined, pytree.tree_structure(batches[0]))
        state = self._stack_tensors(group)
        cell = group[0].cell
        losses = map_losses(
            lambda tensors, given: functional_call(cell, tensors, given), state, (batch,)
        )
        for name in dict(cell.named_buffers()).keys() - group[0].still:  # running statistics
            own = [run.tensors[name] for run in group]
            torch._foreach_copy_(own, list(state[name].unbind(0)))  # type: ignore[attr-defined]
        return losses

    def _stack_tensors(self, group: Sequence[StackedRun]) -> dict[str, Tensor]:
        """Return the stacked tensors of the cells, each (M, ...); gradients flow to the cells.

        Constant tensors, such as masks and references, are stacked once.
        """
        key = tuple(id(run) for run in group)
        known = self._constant.pop(key, {})
        while len(self._constant) > 2:  # remove old groups
            self._constant.pop(next(iter(self._constant)))
        self._constant[key] = kept = {}
        out = {}
        for name in group[0].tensors:
            own = [run.tensors[name] for run in group]
            state = [(id(tensor), tensor._version) for tensor in own]
            if name in known and known[name][0] == state:
                out[name] = known[name][1]
            else:
                out[name] = torch.stack(own)
            if name in group[0].still:
                kept[name] = (state, out[name])
        return out
