"""``hydra/launcher=slurm``: jobs of a sweep as an array of a SLURM cluster, through submitit."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra_plugins.unlearn_launchers._work import CellLauncher, Due, Jobs, WorkerJobRunner

REQUEUE_SECONDS = 60.0  # seconds that a pre-empted job may take to stand in the queue again


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of SLURM; names are those of the config.

    Attributes:
        partition: None is the cluster's usual one.
        minutes: Time limit of a job; when it nears, the job is requeued and goes on.
        memory_gb: Of main memory.
        gpus: Per job; SLURM says which.
        cores: Per job; its torch threads.
        parallel: Jobs of the array that run at once.
        requeues: How often a job may run out of time.
        warning_seconds: Time between SLURM's warning and the time limit.
        account: To be charged; None is the usual one.
        setup: Shell lines before the job.
        more: Further options of sbatch, by long name.
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
    """Runs several jobs one after the other; requeued, it passes over those that are recorded."""

    def run_several(self, numbers: Sequence[int], jobs: Jobs) -> dict[str, int]:
        """Run jobs; return how many were started, wrong, broken."""
        counts = [self(number, job) for number, job in zip(numbers, jobs, strict=True)]
        return {key: sum(c[key] for c in counts) for key in counts[0]}


@dataclass(frozen=True)
class ArrayJob:
    """What one job of the array calls; submitit asks ``checkpoint`` what to do when time is up."""

    job_runner: ResumableJobRunner

    def __call__(self, numbers: Sequence[int], jobs: Jobs) -> dict[str, int]:
        """Run jobs."""
        return self.job_runner.run_several(numbers, jobs)

    def checkpoint(self, numbers: Sequence[int], jobs: Jobs) -> Any:
        """Return the same call: rows are kept, and pre-training goes on from its last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, numbers, jobs)


class SlurmLauncher(CellLauncher):
    """Submits what is due as arrays, and waits for the rows or returns at once."""

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
        """Take the options.

        Args:
            wait: Report each job as it ends; else return when all are submitted.
            cluster: slurm, or local: the same jobs as processes of this machine.
            cells_per_job: Cells that a job runs one after the other.
            array_size: Most jobs of one array (MaxArraySize of the cluster).
            poll_seconds: Between two looks at the jobs.
            folder: Of SLURM's logs.
            array: See ``Array``.

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
        """Submit what is due."""
        numbers = [number for number in range(len(jobs)) if due(number)]
        size = self.cells_per_job
        parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        if not parts:
            return
        submitted = self._submit_arrays(parts, jobs)
        ids = sorted({job.job_id.partition("_")[0] for _, job in submitted})
        what = f"{len(numbers)} cells as {len(parts)} jobs of SLURM: {', '.join(ids)}"
        if not self.wait:
            self.task.outcomes.submitted += len(numbers)
            self.task.print_line(
                f"submitted {what}; the same command with status=true tells how far"
            )
            return
        self.task.print_line(f"submitted {what}; waiting")
        try:
            self._wait_for_jobs(submitted)
        except BaseException:
            self.task.print_line(
                f"the jobs go on in the cluster; scancel {' '.join(ids)} ends them"
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
        """Report each job as it ends, until none is left."""
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
        except Exception as error:  # submitit's own kinds, and whatever the job raised
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
    """Say whether a job has ended; one that was pre-empted may come back for a while."""
    if job.done(force_check=True):
        return True
    if not job.state.upper().startswith(("PREEMPTED", "NODE_FAIL")):
        stuck.pop(job.job_id, None)
        return False
    return time.monotonic() - stuck.setdefault(job.job_id, time.monotonic()) > REQUEUE_SECONDS


def _describe_failure(job: Any, error: Exception) -> str:
    """Return why a job ended without a result: SLURM's word for it, and what its log says last."""
    lines = [line for line in (job.stderr() or "").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    said = (errors or lines or str(error).strip().splitlines())[-1]
    return f"SLURM job {job.job_id} {job.state}: {said.strip()[:300]}"
