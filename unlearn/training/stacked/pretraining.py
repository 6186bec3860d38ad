"""Stacked pre-training: several models as one program, each with its own data and order.

Parameters and buffers of the networks become views into stacked tensors (M, ...), so that a step of
the stack is a step of each network. Convolutions of all models run as one grouped convolution
(``torch.func.vmap``). For a batch of a different size, such as the last one of a pass, only its
network takes a step. Shapes: M models, B batch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from unlearn.core.types import Batch, ImageSet
from unlearn.models.expansion.expanded import Expanded
from unlearn.training.engine import Engine
from unlearn.training.loader import Augmentation, ResidentLoader
from unlearn.training.optimizers import use_fast_step
from unlearn.training.recipe import Pretraining
from unlearn.training.stacked.engine import StackEngine, map_losses

PRECISIONS = ("32-true", "bf16-mixed")
ELEMENTWISE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
"""Optimizers for which a step on stacked parameters equals a step on each model's."""


@dataclass
class StackMember:
    """Network, data, seed and loggers of one model of a stack."""

    network: nn.Module
    data: ImageSet
    seed: int
    loggers: Sequence[Logger] = field(default_factory=tuple)


class Stack:
    """Networks of one architecture whose parameters and buffers are views into stacked tensors.

    Attributes:
        losses: Sum of each model's losses since the last reset, (M,).
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Stack the tensors of the networks, which remain usable individually."""
        self.networks = list(networks)
        parameters = _gather_states([dict(n.named_parameters()) for n in networks])
        buffers = _gather_states([dict(n.named_buffers()) for n in networks])
        self.parameters = {k: torch.stack(v).requires_grad_() for k, v in parameters.items()}
        self.buffers = {name: torch.stack(parts) for name, parts in buffers.items()}
        for number, network in enumerate(networks):
            for stacked, own in (
                (self.parameters, network.named_parameters()),
                (self.buffers, network.named_buffers()),
            ):
                for name, tensor in own:
                    tensor.data = stacked[name].detach()[number]
        self.masked = isinstance(networks[0], Expanded)
        first = next(iter(self.parameters.values()))
        self.losses = torch.zeros(len(networks), device=first.device)

    def compute_losses(self, batches: Sequence[Batch]) -> Tensor:
        """Return each model's mean cross-entropy on its batch, (M,), for batches of equal size."""
        image, label, index = (
            torch.stack([getattr(batch, part) for batch in batches])
            for part in ("image", "label", "index")
        )
        network, masked = self.networks[0], self.masked

        def member_loss(state: Any, image: Tensor, label: Tensor, index: Tensor) -> Tensor:
            logits = functional_call(network, state, (image, *((index,) if masked else ())))
            return F.cross_entropy(logits, label)

        return map_losses(member_loss, (self.parameters, self.buffers), image, label, index)

    def compute_gradients(
        self, batches: Sequence[Batch], autocast: AbstractContextManager[Any]
    ) -> None:
        """Compute each model's gradient and store it in the stacked parameters."""
        for parameter in self.parameters.values():
            parameter.grad = None
        with autocast:
            loss = self.compute_losses(batches)
        loss.sum().backward()
        self.losses += loss.detach()

    def hand_out(self) -> None:
        """Assign each network its part of the gradients."""
        for number, network in enumerate(self.networks):
            for name, parameter in network.named_parameters():
                grad = self.parameters[name].grad
                parameter.grad = None if grad is None else grad[number]


def _gather_states(states: Sequence[dict[str, Tensor]]) -> dict[str, list[Tensor]]:
    return {name: [state[name].detach() for state in states] for name in states[0]}


def detach_storage(network: nn.Module) -> None:
    """Replace a network's views by copies."""
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()
        tensor.grad = None


def find_obstacle(engine: Engine, network: nn.Module, precision: Any = None) -> str | None:
    """Return why such models cannot be stacked, or None; ``precision`` None: the engine's."""
    if engine.compile:
        return "trainer.compile is true"
    for key in ("devices", "accumulate"):
        if getattr(engine, key) != 1:
            return f"trainer.{key} is not 1"
    precision = precision or engine.resolved_precision()
    if precision not in PRECISIONS:
        return f"precision {precision} is not supported"
    drawing = [m for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p]
    return "the network draws random numbers (dropout)" if drawing else None


class MemberRun:
    """Training state of one model: its batches, learning rate, curves and notes."""

    def __init__(
        self, number: int, member: StackMember, recipe: Pretraining, engine: Engine, augment: Any
    ) -> None:
        """Initialise the state at the first batch."""
        self.number, self.member, self.recipe = number, member, recipe
        self.network = engine.place_model(member.network).train()
        self.masked = isinstance(self.network, Expanded)
        self.loader = ResidentLoader(
            member.data, batch_size=recipe.batch_size, augment=augment, seed=member.seed,
            device=engine.device,
        )  # fmt: skip
        self.total = recipe.epochs * len(self.loader)
        self.steps = self.epoch = 0
        self.broken = False  # whether the loss is not finite
        self.sum: Callable[[], float] = lambda: 0.0  # returns and resets the sum of the losses
        self.started = time.perf_counter()
        self.batches = self._iterate_batches()
        self.pending = next(self.batches, None)

    @property
    def kind(self) -> int:
        """Return the size of the next batch."""
        return len(self.pending.label) if self.pending is not None else 0

    def _iterate_batches(self) -> Iterator[Batch]:
        for epoch in range(self.recipe.epochs):
            self.epoch = epoch
            self.loader.set_epoch(epoch)
            yield from self.loader
            self._log_epoch()

    def _log_epoch(self) -> None:
        mean = self.sum() / len(self.loader)
        self.broken |= not abs(mean) < float("inf")
        values = {"epoch": float(self.epoch + 1), "train/loss": mean}
        values["seconds"] = time.perf_counter() - self.started
        for logger in self.member.loggers:
            logger.log_metrics(values, step=self.epoch + 1)
            logger.save()

    def next_step(self) -> None:
        """Fetch the batch of the next step."""
        self.steps += 1
        self.pending = next(self.batches, None)

    def set_rates(self, optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
        """Set the learning rates of this step; ``rates`` are the base rates of the recipe."""
        factor = self.recipe.schedule(self.steps, self.total)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor


class StackedPretrainer(StackEngine[MemberRun]):
    """Train the models of a stack to the end."""

    def __init__(self, runs: Sequence[MemberRun], recipe: Pretraining, engine: Engine) -> None:
        """Create a shared optimizer if it is equivalent, and one per model."""
        half = engine.resolved_precision() == "bf16-mixed"
        super().__init__(runs, lambda: torch.autocast(engine.device.type, torch.bfloat16, half))
        self.batch_size = recipe.batch_size
        self._stack_networks()
        made = [use_fast_step(recipe.optimizer(list(run.network.parameters()))) for run in runs]
        self.rates = [group["lr"] for group in made[0].param_groups]
        same = len({len(run.member.data) for run in runs}) == 1
        self.shared: torch.optim.Optimizer | None = None
        if same and type(made[0]) in ELEMENTWISE:
            self.shared = use_fast_step(recipe.optimizer(list(self.stack.parameters.values())))
        self.own = dict(zip((run.number for run in runs), made, strict=True))

    def _stack_networks(self, before: Sequence[Tensor] = ()) -> None:
        self.stack = Stack([run.network for run in self.runs])
        for number, run in enumerate(self.runs):
            run.sum = lambda number=number: self._sum_losses(number)
        if before:
            self.stack.losses = torch.stack(list(before))

    def _sum_losses(self, number: int) -> float:
        value = self.stack.losses[number].item()
        self.stack.losses[number] = 0
        return value

    def _rank_group(self, group: Sequence[MemberRun]) -> int:
        return group[0].kind

    def _remove_runs(self, ended: Sequence[MemberRun]) -> None:
        sums = [s for r, s in zip(self.runs, self.stack.losses, strict=True) if r not in ended]
        super()._remove_runs(ended)
        for run in ended:
            detach_storage(run.network)
        if self.runs:
            self._stack_networks(sums)

    def _step_group(self, group: Sequence[MemberRun]) -> None:
        """Step all models jointly; part of them individually, up to a batch of full size."""
        if len(group) == len(self.runs):
            self._step_stack()
            return
        for run in group:
            while run.pending is not None and run.kind != self.batch_size:
                self._step_member(run)

    def _step_stack(self) -> None:
        batches = [run.pending for run in self.runs if run.pending is not None]
        self.stack.compute_gradients(batches, self.cast())
        if self.shared is not None:
            self.runs[0].set_rates(self.shared, self.rates)
            self.shared.step()
        else:
            self.stack.hand_out()
            for run in self.runs:
                run.set_rates(self.own[run.number], self.rates)
                self.own[run.number].step()
        for run in self.runs:
            run.next_step()
            if run.broken and self.shared is None:
                run.pending = None

    def _step_member(self, run: MemberRun) -> None:
        batch, optimizer = run.pending, self.own[run.number]
        assert batch is not None
        optimizer.zero_grad()
        with self.cast():
            logits = run.network(batch.image, *((batch.index,) if run.masked else ()))
            loss = F.cross_entropy(logits, batch.label)
        loss.backward()
        self.stack.losses[self.runs.index(run)] += loss.detach()
        run.set_rates(optimizer, self.rates)
        optimizer.step()
        run.next_step()


def pretrain_stacked(
    members: Sequence[StackMember],
    recipe: Pretraining,
    engine: Engine,
    *,
    augment: Augmentation | None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Train the members' networks in place as a stack; see ``pretrain``.

    Args:
        members: M models of one architecture; the data may differ in size.
        recipe: Epochs, batch size, optimizer, schedule: the same for all.
        engine: Device, precision and trainer options.
        augment: Batch augmentation, drawn per model.

    Yields:
        The number of a member that has ended, with its network in eval mode, and notes: seconds
        (its share of the stack's time), images_seen, stacked (M). Members with a loss that is not
        finite are skipped.
    """
    started = time.perf_counter()
    runs = [MemberRun(n, member, recipe, engine, augment) for n, member in enumerate(members)]
    for run in StackedPretrainer(runs, recipe, engine):
        run.network.eval()
        if run.broken:
            continue
        yield (
            run.number,
            {
                "seconds": (time.perf_counter() - started) / len(members),
                "images_seen": recipe.epochs * len(run.member.data),
                "stacked": len(members),
            },
        )
