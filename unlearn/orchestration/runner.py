"""Runs the jobs of a command one by one; a failed job does not stop the others."""

import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from unlearn.core.errors import format_user_error
from unlearn.core.imports import import_quickly
from unlearn.core.job import Job, describe_discovery
from unlearn.orchestration.messages import log_to_stderr, print_error
from unlearn.orchestration.outcomes import JobCounts
from unlearn.storage.run_errors import write_error

if TYPE_CHECKING:
    from unlearn.orchestration.stacking.stack_queue import StackQueue

HYDRA_FILES = {".hydra", "run.log", ".lock"}


@dataclass
class JobRunner:
    """Task function that hydra calls for every job; counts outcomes; other processes get a copy."""

    name: str
    function: str
    outcomes: JobCounts
    stack_queue: "StackQueue | None" = None

    def __call__(self, config: DictConfig) -> Any:
        """Run one job."""
        return _run_job(config, self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state and register schemas and resolver, which a new process lacks."""
        from unlearn.config.registration import register_schemas

        register_schemas()
        vars(self).update(state)

    def copy_for_process(self) -> "JobRunner":
        """Return a copy for another process, with counts of zero and without announcements."""
        return replace(
            self, outcomes=JobCounts(self.outcomes.jobs[:2], suppress_announcements=True)
        )

    def needs_run(self, number: int) -> bool:
        """Return whether a job has to run: not recorded and not running in another process."""
        progress = self.outcomes.progress
        cell = progress.cells[number] if progress else None
        if cell is not None and self.stack_queue and self.stack_queue.is_claimed(cell.run_id):
            return True
        if cell is None:
            return True
        return not (cell.is_running() or (cell.is_recorded() and not self.is_forced(number)))

    def is_forced(self, number: int) -> bool:
        """Return whether a job runs although it is recorded."""
        return any(o.lower() == "force=true" for o in self.outcomes.jobs[number])

    def train_shared_models(self) -> None:
        """Train the models that the jobs of a sweep share, stacked if ``stack`` is set."""
        progress = self.outcomes.progress
        cells = progress.cells if progress else []
        due = [cell for number, cell in enumerate(cells) if self.needs_run(number)]
        if len(due) < 2 or all(_is_unstacked(cell) for cell in due):
            return
        from unlearn.orchestration.stacking.shared_models import train_shared_models

        try:
            with log_to_stderr():
                train_shared_models([_make_job(cell) for cell in due])
        except Exception as error:  # the job that needs the models raises it again, with traceback
            print_error(
                f"shared models are trained later, one by one: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            )

    def unlearn_stack(self, number: int) -> None:
        """Unlearn a cell stacked with similar cells, if ``stack`` is set."""
        progress = self.outcomes.progress
        if progress is None or _is_unstacked(progress.cells[number]):
            return
        try:
            with log_to_stderr():
                self._get_stack_queue().claim_and_unlearn(
                    progress.cells, number, self.needs_run, _make_job
                )
        except Exception as error:  # each job raises it again when it runs
            print_error(
                f"unlearning one by one: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            )

    def _get_stack_queue(self) -> "StackQueue":
        if self.stack_queue is None:
            from unlearn.orchestration.stacking.stack_queue import StackQueue

            self.stack_queue = StackQueue()
        return self.stack_queue

    def take_claim(self, job: Job) -> tuple[Any, Any]:
        """Return the lock of a run, and its unlearning result if it was part of a stack."""
        if self.stack_queue is not None:
            return self.stack_queue.take_result(job.run_id, job.folder)
        from unlearn.orchestration.cells import run_lock

        return run_lock(job.folder), None

    def announce_job(self, overrides: Sequence[str]) -> None:
        """Print that a job starts in another process."""
        _print_start(self.outcomes, overrides)

    def print_line(self, line: str) -> None:
        """Write one line to standard error."""
        print_error(line)

    def report_job(self, number: int, where: str) -> None:
        """Print how a job in another process ended, with the reason if it failed."""
        cell = self.outcomes.progress.cells[number] if self.outcomes.progress else None
        fate = cell.get_state() if cell else "ended"
        why = f": {cell.read_error()}" if cell and fate == "failed" else ""
        asked = _format_overrides(self.outcomes.jobs[number])
        print_error(f"[{_format_progress(self.outcomes)}] {fate} in {where}: {asked}{why}")

    def take_counts(self) -> dict[str, Any]:
        """Return the outcome counts since the last call."""
        return self.outcomes.take_counts()

    def record_lost_job(self, number: int, why: str) -> None:
        """Record a job whose process died, and why; shown by status=true."""
        self.outcomes.add_counts({"started": 1, "broken": 1})
        why = " ".join(why.split())
        print_error(f"error: {_format_overrides(self.outcomes.jobs[number])}: {why}")
        if self.outcomes.progress is not None:
            cell = self.outcomes.progress.cells[number]
            write_error(cell.folder, why + "\n")


def _make_job(cell: Any) -> Job:
    """Return the job of a cell."""
    return Job(dict(cell.content), cell.run_id, cell.folder, cell.names, _instantiate_node)


def _is_unstacked(cell: Any) -> bool:
    return str(cell.content["stack"]).lower() in ("off", "false")


def _instantiate_node(node: Any) -> Any:
    """Instantiate a node; one function for all jobs, since cached data sets are keyed by it."""
    from hydra.utils import instantiate

    return instantiate(node, _convert_="all")


def _job_of_config(config: DictConfig, *, brief: bool) -> Job:
    from hydra.core.hydra_config import HydraConfig

    from unlearn.config.identity import run_id_of_config, to_plain_config

    content = to_plain_config(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    return Job(
        content, run_id_of_config(config), folder, content["names"], _instantiate_node, brief
    )


def _run_job(config: DictConfig, task: JobRunner) -> Any:
    """Run one job; problems are counted and do not stop later jobs."""
    outcomes = task.outcomes
    job = _job_of_config(config, brief=outcomes.is_sweep)
    outcomes.started += 1
    if outcomes.is_sweep and not outcomes.suppress_announcements:
        from hydra.core.hydra_config import HydraConfig

        _print_start(outcomes, HydraConfig.get().overrides.task)
    if outcomes.run_ids is not None:
        job.config["where"] = {**job.config["where"], "run_id": outcomes.run_ids}
    if task.name != "unlearn":
        return _call_job(job, task.function, outcomes)
    if job.config["tune"]["trials"]:
        best = _call_job(job, "tune_job", outcomes)
        _remove_empty_folder(job.folder)
        return best
    job.config.pop("tune")  # not part of a run's row
    from filelock import Timeout

    lock, outcome = task.take_claim(job)
    try:
        with lock:
            # Checked under the lock: another process may just have finished the run.
            if not job.config["force"] and _report_if_recorded(job):
                outcomes.started -= 1
                return None
            return _call_job(replace(job, stacked_result=outcome), task.function, outcomes)
    except Timeout:
        ending = "" if outcomes.is_sweep else "not finished: "
        print_error(f"{ending}running in another process: {job.folder}")
        outcomes.locked.append(job.run_id)
        outcomes.started -= 1
    finally:
        lock.release(force=True)  # held since the stack was unlearned, if the cell was part of one
    return None


def _print_start(outcomes: JobCounts, overrides: Sequence[str]) -> None:
    print_error(f"[{_format_progress(outcomes)}] {_format_overrides(overrides)}")


def _format_overrides(overrides: Sequence[str]) -> str:
    return " ".join(o for o in overrides if not o.startswith(("hydra.", "hydra/")))


def _format_progress(outcomes: JobCounts) -> str:
    if outcomes.progress is not None:
        return outcomes.progress.format_line(outcomes.num_failed)
    return f"{outcomes.started}/{len(outcomes.jobs)}"


def _call_job(job: Job, function: str, outcomes: JobCounts) -> Any:
    try:
        package = "unlearn.orchestration.tuning" if function == "tune_job" else "unlearn.pipeline"
        with import_quickly():
            call: Callable[[Job], Any] = getattr(import_module(f"{package}.{function}"), function)
        return call(job)
    except Exception as error:
        problem = format_user_error(error)
        if problem is None:
            return _record_defect(job, outcomes)
        outcomes.wrong += 1
        problem = " ".join(problem.split())
        print_error(f"error: {problem}")
        if outcomes.is_sweep:  # shown by status=true
            write_error(job.folder, problem + "\n")
        else:
            _remove_empty_folder(job.folder)
    return None


def _record_defect(job: Job, outcomes: JobCounts) -> None:
    outcomes.broken += 1
    error, where = sys.exc_info()[1], write_error(job.folder, traceback.format_exc())
    print_error(f"error: {type(error).__name__}: {' '.join(str(error).split())[:300]} ({where})")


def _remove_empty_folder(folder: Path) -> None:
    """Remove a run's folder if it contains only hydra's files."""
    if folder.is_dir() and {p.name for p in folder.iterdir()} <= HYDRA_FILES:
        shutil.rmtree(folder)


def _report_if_recorded(job: Job) -> bool:
    """Return whether the row is recorded, and print it if so; imports nothing heavy."""
    from unlearn.storage.row_files import read_row

    row = read_row(job.folder)
    if row is None:
        return False
    shown = ("healed", "utility", "healed_utility", "tow", "tow_mia", "mia_gap")
    values = [f"{k} {row[k]:.3f}" for k in shown if isinstance(row.get(k), int | float)]
    names = {**job.names, **row}
    print_error(
        f"already recorded: {names['method']} on {names['dataset']}, {names['corruption']}, discovery "
        f"{describe_discovery(job.config)}: {', '.join(values) or row['status']} ({job.folder}); "
        "use force=true to run it again"
    )
    return True
