"""Is a stack of models faster than one after the other? A few steps of copies tell."""

import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from unlearn.training.engine import Engine
from unlearn.training.loader import Augmentation, ResidentLoader
from unlearn.training.stacked.pretraining import Member, Stack

STEPS = 5


def speedup(
    members: Sequence[Member],
    batch_size: int,
    engine: Engine,
    *,
    augment: Augmentation | None,
) -> float:
    """Return the time of a step of each model by itself over that of one step of all as a stack.

    The members are left as they are; optimizers, which cost little, do not take part.
    """
    copies = [copy.deepcopy(member.network) for member in members]
    # What is frozen costs less in either way; here all of it is trained in both.
    networks = [engine.place(network).train().requires_grad_() for network in copies]
    loader = ResidentLoader(
        members[0].data, batch_size=batch_size, augment=augment, seed=0, device=engine.device
    )
    batch = next(iter(loader))
    stack = Stack([copy.deepcopy(network) for network in networks])
    index = (batch.index,) if stack.masked else ()
    half = engine.resolved_precision() == "bf16-mixed"

    def cast() -> torch.autocast:
        return torch.autocast(engine.device.type, torch.bfloat16, half)

    def alone() -> None:
        for network in networks:
            with cast():
                loss = F.cross_entropy(network(batch.image, *index), batch.label)
            loss.backward()

    return _seconds(alone) / _seconds(lambda: stack.backward([batch] * len(members), cast()))


def _seconds(call: Callable[[], None]) -> float:
    """Return the seconds of the fastest of some calls, after one that does not count."""
    times = []
    for _ in range(1 + STEPS):
        _wait()
        started = time.perf_counter()
        call()
        _wait()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
