"""``hydra/launcher=joblib``: several workers on this machine, each with its own device or cores.

The processes are joblib's (loky). Hydra's own joblib launcher gives jobs no device
(read in the source of hydra-joblib-launcher 1.2.0).
"""

import os
import shutil
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from hydra_plugins.unlearn_launchers._work import CellLauncher, Due, Jobs

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def list_gpus() -> list[str]:
    """Return this machine's GPUs by their CUDA_VISIBLE_DEVICES names, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [part.strip() for part in visible.split(",") if part.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    lines = [line for line in found.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def build_worker_environments(
    jobs: int, *, workers: int | None, devices: Sequence[str], jobs_per_device: int, cores: int
) -> list[dict[str, str]]:
    """Return the environment of each worker.

    Args:
        jobs: Number of jobs; at most this many workers are started.
        workers: Number of workers; None: one per device slot, without devices one per core.
        devices: Names of GPUs, assigned in turn.
        jobs_per_device: Workers per GPU.
        cores: Cores to divide into threads, at least one per worker.
    """
    places = [device for _ in range(jobs_per_device) for device in devices]
    number = min(jobs, workers or len(places) or cores)
    if places:
        number = min(number, len(places))  # workers without a device wait
    threads = str(max(1, cores // number)) if number else "1"
    out: list[dict[str, str]] = [{key: threads for key in THREAD_VARIABLES} for _ in range(number)]
    for slot, device in zip(out, places, strict=False):
        slot["CUDA_VISIBLE_DEVICES"] = device
    return out


class JoblibLauncher(CellLauncher):
    """Keeps one process per slot; a process that dies only loses its cell."""

    def __init__(
        self, workers: int | None, devices: list[Any] | None, jobs_per_device: int
    ) -> None:
        """Store the options.

        Args:
            workers: Processes; None: one per device, without devices one per core.
            devices: GPUs by number; None: all, [] none.
            jobs_per_device: Jobs that share a GPU.

        Raises:
            ValueError: If a number is too small.
        """
        for name, value in (("workers", workers), ("jobs_per_device", jobs_per_device)):
            if value is not None and value < 1:
                raise ValueError(f"hydra.launcher.{name} must be at least 1, got {value}")
        self.workers = workers
        self.devices = devices
        self.jobs_per_device = jobs_per_device
        self.stopped = False
        self.pools: dict[int, Any] = {}

    def run_due_jobs(self, jobs: Jobs, due: Due) -> None:
        """Assign jobs to free workers until all are done; an interruption ends the workers too."""
        from joblib import cpu_count  # respects CPU affinity and container limits

        self.stopped, self.pools = False, {}  # a sweep may launch again what others left
        on_cpu = self.config.trainer.accelerator == "cpu"
        named = list_gpus() if self.devices is None else [str(d) for d in self.devices]
        environments = build_worker_environments(
            len(jobs),
            workers=self.workers,
            devices=[] if on_cpu else named,
            jobs_per_device=self.jobs_per_device,
            cores=cpu_count(),
        )
        numbers, lock = iter(range(len(jobs))), threading.Lock()

        def iterate_due_jobs() -> Iterator[int]:
            while not self.stopped:
                with lock:
                    number = next((n for n in numbers if due(n)), None)
                    if number is None:
                        return
                    self.task.announce_job(jobs[number])
                yield number

        threads = [
            threading.Thread(
                target=self._run_worker, args=(i, slot, iterate_due_jobs(), jobs), daemon=True
            )
            for i, slot in enumerate(environments)
        ]
        # A worker whose memory has grown is restarted between two jobs, which is no error.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self.stopped = True
            for pool in list(self.pools.values()):
                pool.shutdown(wait=False, kill_workers=True)

    def _run_worker(
        self, slot: int, environment: dict[str, str], turns: Iterator[int], jobs: Jobs
    ) -> None:
        """Run jobs in one worker process, and in a new one if it dies."""
        from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

        for number in turns:
            if slot not in self.pools:
                self.pools[slot] = ProcessPoolExecutor(
                    1, env=environment, initializer=_initialize_worker, initargs=(os.getpid(),)
                )
            try:
                counts = self.pools[slot].submit(self.job_runner, number, jobs[number]).result()
                self.task.outcomes.add_counts(counts)
            except BrokenProcessPool as error:
                self.pools.pop(slot).shutdown(wait=False, kill_workers=True)
                if not self.stopped:
                    self.task.record_lost_job(number, _describe_worker_exit(error))
            except BaseException as error:  # an unhandled error ends only its job
                if not self.stopped:
                    self.task.record_lost_job(number, f"{type(error).__name__}: {error}")


def _describe_worker_exit(error: BaseException) -> str:
    text = " ".join(str(error).split())
    signals = text.rpartition("exit codes of the workers are ")[2] if "exit codes" in text else ""
    note = "; SIGKILL usually means out of memory" if "SIGKILL" in signals else ""
    return f"the worker process died {signals or text}{note}"


def _initialize_worker(parent: int) -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def exit_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
