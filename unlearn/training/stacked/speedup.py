"""Measure the speedup of a stack over sequential training, with a few steps of copies."""

import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from unlearn.training.engine import Engine
from unlearn.training.loader import Augmentation, ResidentLoader
from unlearn.training.stacked.pretraining import Stack, StackMember

STEPS = 5


def measure_speedup(
    members: Sequence[StackMember],
    batch_size: int,
    engine: Engine,
    *,
    augment: Augmentation | None,
) -> float:
    """Return the time of one step of each model divided by that of one step of the stack.

    The members are not modified; optimizer steps, which cost little, are not included.
    """
    copies = [copy.deepcopy(member.network) for member in members]
    # Freezing would reduce the cost of both; here all parameters are trained in both.
    networks = [engine.place_model(network).train().requires_grad_() for network in copies]
    loader = ResidentLoader(
        members[0].data, batch_size=batch_size, augment=augment, seed=0, device=engine.device
    )
    batch = next(iter(loader))
    stack = Stack([copy.deepcopy(network) for network in networks])
    index = (batch.index,) if stack.masked else ()
    half = engine.resolved_precision() == "bf16-mixed"

    def autocast_context() -> torch.autocast:
        return torch.autocast(engine.device.type, torch.bfloat16, half)

    def step_members() -> None:
        for network in networks:
            with autocast_context():
                loss = F.cross_entropy(network(batch.image, *index), batch.label)
            loss.backward()

    return _time_call(step_members) / _time_call(
        lambda: stack.compute_gradients([batch] * len(members), autocast_context())
    )


def _time_call(call: Callable[[], None]) -> float:
    """Return the seconds of the fastest call of several, after one warm-up call."""
    times = []
    for _ in range(1 + STEPS):
        _synchronize_device()
        started = time.perf_counter()
        call()
        _synchronize_device()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _synchronize_device() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
