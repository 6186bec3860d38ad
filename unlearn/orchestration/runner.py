"""Runs the jobs of a command one by one: a problem costs its own job a line, never the others."""

import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from unlearn.core.errors import user_error
from unlearn.core.job import Job, found_by
from unlearn.orchestration.messages import _aloud, say
from unlearn.orchestration.outcomes import Outcomes
from unlearn.orchestration.stacking.stack_queue import Convoy
from unlearn.storage.run_errors import note

HYDRAS_OWN = {".hydra", "run.log", ".lock"}


@dataclass
class Task:
    """What hydra calls for every job, with the account of all; other processes get a copy."""

    name: str
    function: str
    outcomes: Outcomes
    convoy: Convoy = field(default_factory=Convoy)

    def __call__(self, config: DictConfig) -> Any:
        """Run one job."""
        return _one(config, self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process, which does not know our schemas and resolver yet."""
        from unlearn.config.registration import register

        register()
        vars(self).update(state)

    def elsewhere(self) -> "Task":
        """Return a copy for another process, which counts from nothing and announces nothing."""
        return replace(self, outcomes=Outcomes(self.outcomes.jobs[:2], quiet=True))

    def due(self, number: int) -> bool:
        """Say whether a job still has to run: it may be recorded, or another process at it."""
        progress = self.outcomes.progress
        cell = progress.cells[number] if progress else None
        if cell is not None and self.convoy.holds(cell.run_id):
            return True
        forced = any(o.lower() == "force=true" for o in self.outcomes.jobs[number])
        return cell is None or not (cell.busy() or (cell.recorded() and not forced))

    def ahead(self) -> None:
        """Train what the jobs of a sweep share, several models at once, where ``stack`` wants that."""
        progress = self.outcomes.progress
        cells = progress.cells if progress else []
        due = [cell for number, cell in enumerate(cells) if self.due(number)]
        if len(due) < 2 or all(_one_by_one(cell) for cell in due):
            return
        from unlearn.orchestration.stacking.shared_models import train_ahead

        try:
            with _aloud():
                train_ahead([_of(cell) for cell in due])
        except Exception as error:  # whoever needs the models meets it again, and tells it in full
            say(f"not trained ahead: {type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def beside(self, number: int) -> None:
        """Unlearn a cell at once with others of its kind, where ``stack`` wants that."""
        progress = self.outcomes.progress
        if progress is None or _one_by_one(progress.cells[number]):
            return
        try:
            with _aloud():
                self.convoy.gather(progress.cells, number, self.due, _of)
        except Exception as error:  # each meets it again in its turn
            say(
                f"not unlearned at once: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            )

    def announce(self, overrides: Sequence[str]) -> None:
        """Say that a job begins in another process."""
        _announce(self.outcomes, overrides)

    def say(self, line: str) -> None:
        """Write one line to standard error."""
        say(line)

    def report(self, number: int, where: str) -> None:
        """Say how a job that ran elsewhere ended, and why it failed."""
        cell = self.outcomes.progress.cells[number] if self.outcomes.progress else None
        fate = cell.state() if cell else "ended"
        why = f": {cell.error()}" if cell and fate == "failed" else ""
        asked = _asked(self.outcomes.jobs[number])
        say(f"[{_how_far(self.outcomes)}] {fate} in {where}: {asked}{why}")

    def take(self) -> dict[str, int]:
        """Return what became of the jobs since the last call."""
        return self.outcomes.take()

    def lose(self, number: int, why: str) -> None:
        """Note that a job ended without a word, and why; a sweep's status shows it."""
        self.outcomes.add({"started": 1, "wrong": 0, "broken": 1})
        why = " ".join(why.split())
        say(f"error: {_asked(self.outcomes.jobs[number])}: {why}")
        if self.outcomes.progress is not None:
            cell = self.outcomes.progress.cells[number]
            note(cell.folder, why + "\n")


def _of(cell: Any) -> Job:
    """Return the job of a cell."""
    return Job(dict(cell.content), cell.run_id, cell.folder, cell.names, _build)


def _one_by_one(cell: Any) -> bool:
    return str(cell.content["stack"]).lower() in ("off", "false")


def _build(node: Any) -> Any:
    """Make a node's object; one function for all jobs, since data sets are remembered by it."""
    from hydra.utils import instantiate

    return instantiate(node, _convert_="all")


def _job(config: DictConfig, *, brief: bool) -> Job:
    from hydra.core.hydra_config import HydraConfig

    from unlearn.config.identity import plain, run_id

    content = plain(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    return Job(content, run_id(config), folder, content["names"], _build, brief)


def _one(config: DictConfig, task: Task) -> Any:
    """Run one job; problems are counted, so that the jobs after it go on."""
    outcomes = task.outcomes
    job = _job(config, brief=outcomes.several)
    outcomes.started += 1
    if outcomes.several and not outcomes.quiet:
        from hydra.core.hydra_config import HydraConfig

        _announce(outcomes, HydraConfig.get().overrides.task)
    if task.name != "unlearn":
        return _attempt(job, task.function, outcomes)
    if job.config["tune"]["trials"]:
        best = _attempt(job, "tune_job", outcomes)
        _clean(job.folder)
        return best
    job.config.pop("tune")  # no part of a run's row
    from filelock import Timeout

    lock, outcome = task.convoy.leave(job.run_id, job.folder)
    try:
        with lock:
            # Only whoever holds the run knows: another process may have ended it a moment ago.
            if not job.config["force"] and _recorded(job):
                outcomes.started -= 1
                return None
            return _attempt(replace(job, ready=outcome), task.function, outcomes)
    except Timeout:
        say(f"another process is at this run: {job.folder}")
        outcomes.started -= 1
    finally:
        lock.release(force=True)  # of a cell that was made beside others: it is ours since then
    return None


def _announce(outcomes: Outcomes, overrides: Sequence[str]) -> None:
    say(f"[{_how_far(outcomes)}] {_asked(overrides)}")


def _asked(overrides: Sequence[str]) -> str:
    return " ".join(o for o in overrides if not o.startswith(("hydra.", "hydra/")))


def _how_far(outcomes: Outcomes) -> str:
    if outcomes.progress is not None:
        return outcomes.progress.line(outcomes.bad)
    return f"{outcomes.started}/{len(outcomes.jobs)}"


def _attempt(job: Job, function: str, outcomes: Outcomes) -> Any:
    try:
        package = "unlearn.orchestration.tuning" if function == "tune_job" else "unlearn.pipeline"
        call: Callable[[Job], Any] = getattr(import_module(f"{package}.{function}"), function)
        return call(job)
    except Exception as error:
        problem = user_error(error)
        if problem is None:
            return _broken(job, outcomes)
        outcomes.wrong += 1
        problem = " ".join(problem.split())
        say(f"error: {problem}")
        if outcomes.several:  # a sweep's status names it
            note(job.folder, problem + "\n")
        else:
            _clean(job.folder)
    return None


def _broken(job: Job, outcomes: Outcomes) -> None:
    outcomes.broken += 1
    error, where = sys.exc_info()[1], note(job.folder, traceback.format_exc())
    say(f"error: {type(error).__name__}: {' '.join(str(error).split())[:300]} ({where})")


def _clean(folder: Path) -> None:
    """Remove a run's folder if nothing but hydra has written to it."""
    if folder.is_dir() and {p.name for p in folder.iterdir()} <= HYDRAS_OWN:
        shutil.rmtree(folder)


def _recorded(job: Job) -> bool:
    """Say whether the row is there, and if so, what it holds; needs nothing heavy."""
    from unlearn.orchestration.cells import row_of

    row = row_of(job.folder)
    if row is None:
        return False
    shown = ("healed", "utility", "healed_utility", "tow", "tow_mia", "mia_gap")
    values = [f"{k} {row[k]:.3f}" for k in shown if row.get(k) is not None]
    say(
        f"already recorded: {row['method']} on {row['dataset']}, {row['corruption']}, discovery "
        f"{found_by(job.config)}: {', '.join(values) or row['status']} ({job.folder}); "
        "force=true runs it again"
    )
    return True
