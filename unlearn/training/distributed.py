"""Distributed training by several processes on this machine, one per rank.

Lightning would restart the script, which would run hydra with its folders and sweep once per rank
(hydra #2070). Here a rank runs only the training; its inputs are in shared memory.
This file imports torch only inside a rank, after its environment has been set.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from unlearn.core.errors import format_user_error


@dataclass(frozen=True)
class Rank:
    """Number of a process, and count of all processes, in distributed training."""

    number: int = 0
    count: int = 1

    def count_samples(self, size: int) -> int:
        """Return the number of samples of this rank, out of ``size``."""
        return len(range(self.number, size, self.count))


SINGLE_PROCESS = Rank()


class PickledArguments:
    """Arguments sent to a process, unpickled on request, so that errors can be reported.

    CPU tensors are sent as shared memory: all ranks use one copy.
    """

    def __init__(self, *content: Any) -> None:
        """Store the content."""
        self.content = content

    def __getstate__(self) -> bytes:
        """Return the content as pickled bytes."""
        return bytes(ForkingPickler.dumps(self.content))

    def __setstate__(self, state: bytes) -> None:
        """Store the pickled bytes."""
        self.packed = state

    def unpickle(self) -> Any:
        """Return the unpickled content."""
        return pickle.loads(self.packed)


class RankError(RuntimeError):
    """A rank raised an error, or its process died."""


def run_distributed(
    function: Callable[..., Any], *arguments: Any, count: int, backend: str, threads: int
) -> Any:
    """Call a function in several processes that form a process group; return rank 0's result.

    Args:
        function: Called with the ``Rank`` and the arguments; must be picklable, as the arguments.
        arguments: Arguments; tensors are shared with this process.
        count: Number of processes.
        backend: gloo or nccl.
        threads: Number of torch threads, divided among the processes.

    Raises:
        ValueError: If an argument cannot be sent, or a rank raises a ValueError.
        RankError: If a rank fails or dies; the others are terminated.
    """
    context, ranks, answers = multiprocessing.get_context("spawn"), [], []
    with tempfile.TemporaryDirectory(prefix="unlearn-") as folder:
        try:
            for number in range(count):
                receive, send = context.Pipe(duplex=False)
                about = (Rank(number, count), backend, threads, Path(folder), os.getpid())
                rank = context.Process(
                    target=_run_rank,
                    args=(*about, send, PickledArguments(function, arguments)),
                    daemon=True,
                )
                _start_process(rank, count)
                send.close()  # so that a rank's death closes the pipe
                ranks.append(rank)
                answers.append(receive)
            return _first_answer(ranks, answers, Path(folder))
        finally:
            for rank in ranks:  # safe, since ranks write files atomically
                rank.kill()
                rank.join()


def _start_process(rank: Any, count: int) -> None:
    """Start a process that ignores Ctrl-C, which is handled by this process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        rank.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"trainer.devices={count} sends network, data and recipe to other processes, "
            f"but they cannot be pickled: {error}"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first_answer(ranks: Sequence[Any], answers: Sequence[Connection], folder: Path) -> Any:
    """Wait for all ranks; return the result of rank 0, or raise the first error."""
    left, result = dict(enumerate(answers)), None
    while left:
        ready = wait(list(left.values()))
        failures = []
        for number in [n for n, answer in left.items() if answer in ready]:
            try:
                when, error, value = pickle.loads(left.pop(number).recv_bytes())
            except EOFError:
                ranks[number].join()
                how = _describe_exit(ranks[number].exitcode, folder / f"{number}.log")
                when, error = 0.0, RankError(f"rank {number} of {len(ranks)} {how}")
            else:
                result = value if number == 0 else result
            if error is not None:
                failures.append((when, number, error))
        if failures:
            raise min(failures, key=lambda failure: failure[:2])[2]
    return result


def _describe_exit(code: int | None, log: Path) -> str:
    """Return how a process ended that sent no result."""
    if code is not None and code < 0:
        note = "; a machine out of memory sends SIGKILL" if code == -signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{note}"
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return f"ended with code {code}{': ' + said[-1] if said else ''}"


def _run_rank(
    rank: Rank,
    backend: str,
    threads: int,
    folder: Path,
    parent: int,
    answer: Connection,
    parcel: PickledArguments,
) -> None:
    """Run a rank: join the process group, call the function and send its result."""
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    os.environ["LOCAL_RANK"] = str(rank.number)
    if rank.number:  # only rank 0 writes to the console
        log = os.open(folder / f"{rank.number}.log", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
    result, failure = None, None
    try:
        function, arguments = parcel.unpickle()
        with _join_group(rank, backend, threads, folder):
            result = function(rank, *arguments)
    except BaseException as error:
        failure = _make_sendable_error(error, rank)
    answer.send_bytes(pickle.dumps((time.monotonic(), failure, result)))
    answer.close()
    if failure is not None:
        os._exit(1)  # immediately, since a regular exit may wait for the other ranks


def _exit_with_parent(parent: int) -> None:
    """Exit when the parent process has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextlib.contextmanager
def _join_group(rank: Rank, backend: str, threads: int, folder: Path) -> Iterator[None]:
    """Join the process group, through a file that only this user can read."""
    import torch
    from torch import distributed

    torch.set_num_threads(max(1, threads // rank.count))
    if backend == "nccl":
        torch.cuda.set_device(rank.number)
    distributed.init_process_group(
        backend, init_method=f"file://{folder}/ranks", rank=rank.number, world_size=rank.count
    )
    yield
    distributed.barrier()  # no rank leaves while another may still communicate
    distributed.destroy_process_group()


def _make_sendable_error(error: BaseException, rank: Rank) -> Exception:
    """Return the error to send to the parent: user errors unchanged, others as ``RankError``."""
    own = type(error).__module__.startswith("unlearn.")
    if isinstance(error, Exception) and (own or format_user_error(error) is not None):
        with contextlib.suppress(Exception):
            return pickle.loads(pickle.dumps(error))
    text = " ".join(str(error).split())
    told = RankError(f"rank {rank.number} of {rank.count}: {type(error).__name__}: {text}")
    told.add_note("".join(traceback.format_exception(error)))
    return told
