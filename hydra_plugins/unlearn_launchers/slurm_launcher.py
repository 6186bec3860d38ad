"""``hydra/launcher=slurm``: jobs of a sweep as an array of a SLURM cluster, through submitit."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra_plugins.unlearn_launchers._work import CellLauncher, Due, Jobs, WorkerJobRunner

REQUEUE_SECONDS = 60.0  # seconds that a pre-empted job may take to be queued again


@dataclass(frozen=True)
class SlurmOptions:
    """Resources of a SLURM job; names are those of the config.

    Attributes:
        partition: None is the cluster's default.
        minutes: Time limit of a job, which is requeued and continued shortly before.
        memory_gb: Main memory.
        gpus: GPUs per job, chosen by SLURM.
        cores: Cores and torch threads per job.
        parallel: Jobs of the array that run at once.
        requeues: Number of times that a job may be requeued.
        warning_seconds: Time between SLURM's warning and the time limit.
        account: Account to charge; None is the default.
        setup: Shell lines before the job.
        more: Further sbatch options, by long name.
    """

    partition: str | None
    minutes: int
    memory_gb: float
    gpus: int
    cores: int
    parallel: int
    requeues: int
    warning_seconds: int
    account: str | None
    setup: Sequence[str]
    more: dict[str, Any]

    def __post_init__(self) -> None:
        """Check the numbers."""
        least = {"minutes": 1, "memory_gb": 0.1, "gpus": 0, "cores": 1, "parallel": 1}
        for name, value in (least | {"requeues": 0, "warning_seconds": 0}).items():
            if getattr(self, name) < value:
                raise ValueError(
                    f"hydra.launcher.{name} must be at least {value}, got {getattr(self, name)}"
                )

    def build_parameters(self) -> dict[str, Any]:
        """Return submitit's parameters."""
        threads = [f"export {n}_NUM_THREADS={self.cores}" for n in ("OMP", "MKL", "OPENBLAS")]
        out: dict[str, Any] = {
            "name": "unlearn",
            "timeout_min": self.minutes,
            "slurm_mem": f"{round(self.memory_gb * 1024)}M",
            "cpus_per_task": self.cores,
            "slurm_array_parallelism": self.parallel,
            "slurm_signal_delay_s": self.warning_seconds,
            "slurm_setup": [*threads, *self.setup],
        }
        optional = {"slurm_partition": self.partition, "slurm_account": self.account}
        optional |= {"gpus_per_node": self.gpus, "slurm_additional_parameters": self.more}
        return out | {key: value for key, value in optional.items() if value}


class ResumableJobRunner(WorkerJobRunner):
    """Runs several jobs one after the other; when requeued, skips recorded ones."""

    def run_several(self, numbers: Sequence[int], jobs: Jobs) -> dict[str, Any]:
        """Run jobs; return their counts added up."""
        counts = [self(number, job) for number, job in zip(numbers, jobs, strict=True)]
        return {key: sum((c[key] for c in counts), type(counts[0][key])()) for key in counts[0]}


@dataclass(frozen=True)
class ArrayJob:
    """Callable of one job of the array; submitit calls ``checkpoint`` at the time limit."""

    job_runner: ResumableJobRunner

    def __call__(self, numbers: Sequence[int], jobs: Jobs) -> dict[str, Any]:
        """Run jobs."""
        return self.job_runner.run_several(numbers, jobs)

    def checkpoint(self, numbers: Sequence[int], jobs: Jobs) -> Any:
        """Return the same call: recorded rows are skipped, pre-training is resumed."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, numbers, jobs)


class SlurmLauncher(CellLauncher):
    """Submits jobs as SLURM arrays, and waits for the rows or returns immediately."""

    def __init__(
        self,
        *,
        wait: bool,
        cluster: str,
        cells_per_job: int,
        array_size: int,
        poll_seconds: float,
        folder: str,
        **array: Any,
    ) -> None:
        """Store the options.

        Args:
            wait: Report each job as it ends; otherwise return after submission.
            cluster: slurm; or local: run the jobs as processes on this machine.
            cells_per_job: Number of cells that a job runs in sequence.
            array_size: Maximum jobs per array (MaxArraySize of the cluster).
            poll_seconds: Seconds between two polls of the jobs.
            folder: Folder of SLURM's logs.
            array: See ``SlurmOptions``.

        Raises:
            ValueError: If a number is too small, or the cluster unknown.
        """
        for name, value in (("cells_per_job", cells_per_job), ("array_size", array_size)):
            if value < 1:
                raise ValueError(f"hydra.launcher.{name} must be at least 1, got {value}")
        if cluster not in ("slurm", "local"):
            raise ValueError(f"hydra.launcher.cluster must be slurm or local, got {cluster}")
        self.wait = wait
        self.cluster = cluster
        self.cells_per_job = cells_per_job
        self.array_size = array_size
        self.poll_seconds = poll_seconds
        self.folder = Path(folder)
        self.array = SlurmOptions(**array)

    def run_due_jobs(self, jobs: Jobs, due: Due) -> None:
        """Submit the jobs that have to run."""
        numbers = [number for number in range(len(jobs)) if due(number)]
        size = self.cells_per_job
        parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        if not parts:
            return
        submitted = self._submit_arrays(parts, jobs)
        ids = sorted({job.job_id.partition("_")[0] for _, job in submitted})
        cells, tasks = len(numbers), len(parts)
        what = f"{cells} cell{'s' * (cells != 1)} as {tasks} SLURM job{'s' * (tasks != 1)}: {', '.join(ids)}"
        if not self.wait:
            self.task.outcomes.submitted += len(numbers)
            self.task.print_line(
                f"submitted {what}; add status=true to the command to see the progress"
            )
            return
        self.task.print_line(f"submitted {what}; waiting")
        try:
            self._wait_for_jobs(submitted)
        except BaseException:
            self.task.print_line(
                f"the jobs continue on the cluster; cancel them with: scancel {' '.join(ids)}"
            )
            raise

    def _submit_arrays(self, parts: Sequence[Sequence[int]], jobs: Jobs) -> list[tuple[Any, Any]]:
        executor = self._make_executor()
        batch = ArrayJob(ResumableJobRunner(**vars(self.job_runner)))
        submitted: list[tuple[Any, Any]] = []
        for start in range(0, len(parts), self.array_size):
            some = parts[start : start + self.array_size]
            calls = [[list(jobs[n]) for n in part] for part in some]
            submitted += zip(some, executor.map_array(batch, some, calls), strict=True)
        return submitted

    def _make_executor(self) -> Any:
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise ValueError("hydra/launcher=slurm needs: pip install submitit") from error
        options = {"slurm_max_num_timeout": self.array.requeues} if self.cluster == "slurm" else {}
        try:
            executor = submitit.AutoExecutor(self.folder, cluster=self.cluster, **options)
        except RuntimeError as error:  # no sbatch here
            raise ValueError(f"hydra/launcher=slurm: {error}") from error
        parameters = self.array.build_parameters()
        if self.cluster == "local":
            keep = ("name", "timeout_min", "cpus_per_task", "gpus_per_node")
            parameters = {k: v for k, v in parameters.items() if k in keep}
        executor.update_parameters(**parameters)
        return executor

    def _wait_for_jobs(self, submitted: list[tuple[Any, Any]]) -> None:
        """Report each job as it ends, until all have ended."""
        left, stuck = list(submitted), dict[str, float]()
        while left:
            ended = [pair for pair in left if _has_ended(pair[1], stuck)]
            for pair in ended:
                left.remove(pair)
                self._report_job(*pair)
            if left and not ended:
                time.sleep(self.poll_seconds)

    def _report_job(self, numbers: Sequence[int], job: Any) -> None:
        try:
            counts = job.result()
        except Exception as error:  # submitit's errors, and those of the job
            why = f"{_describe_failure(job, error)} (log: {job.paths.stderr})"
            for number in self._list_unrecorded(numbers):
                self.task.record_lost_job(number, why)
            self.task.outcomes.started += len(numbers) - len(self._list_unrecorded(numbers))
            return
        self.task.outcomes.add_counts(counts)
        for number in numbers:
            self.task.report_job(number, f"SLURM job {job.job_id}")

    def _list_unrecorded(self, numbers: Sequence[int]) -> list[int]:
        progress = self.task.outcomes.progress
        return [n for n in numbers if progress is None or not progress.cells[n].is_recorded()]


def _has_ended(job: Any, stuck: dict[str, float]) -> bool:
    """Return whether a job has ended; a pre-empted job has some time to be requeued."""
    if job.done(force_check=True):
        return True
    if not job.state.upper().startswith(("PREEMPTED", "NODE_FAIL")):
        stuck.pop(job.job_id, None)
        return False
    return time.monotonic() - stuck.setdefault(job.job_id, time.monotonic()) > REQUEUE_SECONDS


def _describe_failure(job: Any, error: Exception) -> str:
    """Return why a job has no result: SLURM's state and the last line of its log."""
    lines = [line for line in (job.stderr() or "").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    said = (errors or lines or str(error).strip().splitlines())[-1]
    return f"SLURM job {job.job_id} {job.state}: {said.strip()[:300]}"
