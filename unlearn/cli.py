"""The three commands: check first, then let hydra run the jobs, one clear line per problem."""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig

from unlearn.job import Job
from unlearn.outcomes import Outcomes
from unlearn.problems import interrupted, note, user_error
from unlearn.validation import ConfigError

HYDRAS_OWN = {".hydra", "run.log", ".lock"}


def say(line: str) -> None:
    """Write one line to standard error."""
    print(line, file=sys.stderr, flush=True)


def train_main() -> None:
    """Pre-train (``python train.py``, ``unlearn-train``)."""
    _main("train", "pretrain_job")


def unlearn_main() -> None:
    """Unlearn (``python unlearn.py``, ``unlearn-run``)."""
    _main("unlearn", "unlearn_job")


def evaluate_main() -> None:
    """Evaluate or summarise (``python evaluate.py``, ``unlearn-evaluate``)."""
    _main("evaluate", "evaluate_job")


class Terminated(KeyboardInterrupt):
    """SIGTERM: as Ctrl-C, so that everything is left in order."""


def _terminate(signum: int, frame: object) -> NoReturn:
    raise Terminated


def _main(name: str, job: str) -> None:
    signal.signal(signal.SIGTERM, _terminate)
    try:
        outcomes = _checked(name, sys.argv[1:])
        if outcomes is None:
            return
        _run(name, job, outcomes)
    except ConfigError as error:
        say(f"error: {error}")
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as error:
        if not interrupted(error):
            raise
        say("interrupted; finished runs are kept, the same command goes on")
        sys.exit(143 if isinstance(error.__context__ or error, Terminated) else 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # of hydra's own folders; those of a job are its own matter
        say(f"error: {error}; UNLEARN_HOME names the folder that everything is written to")
        sys.exit(1)
    if outcomes.several:
        say(outcomes.closing())
    sys.exit(outcomes.code())


def _checked(name: str, argv: list[str]) -> Outcomes | None:
    """Answer --help and --cfg, or check every job; None if there is nothing to run."""
    from unlearn import compose

    arguments = compose.parse(argv)
    if arguments.help or arguments.show == "job":
        from unlearn import describe

        first = replace(arguments, overrides=compose.points(name, arguments)[0])  # of a sweep
        if arguments.help:
            print(describe.show_help(name, first))
        else:
            print(describe.show_config(name, first, resolve="--resolve" in argv))
        return None
    jobs = compose.preflight(name, arguments)
    launcher = compose.launching(name, arguments, jobs)
    sys.argv[1:] = [*compose.flags_first(argv, arguments), *launcher]
    outcomes = Outcomes(jobs)
    return outcomes if name != "unlearn" or _sweep(arguments, outcomes) else None


def _sweep(arguments: Any, outcomes: Outcomes) -> bool:
    """Expand a sweep into cells; answer plan and status; say whether anything is to be run."""
    asked = {o.partition("=")[0]: o.partition("=")[2].lower() for o in outcomes.jobs[0]}
    plan, status = asked.get("plan", "false") == "true", asked.get("status", "false")
    studies = asked.get("tune.trials", "0") != "0"
    if studies or not (outcomes.several or plan or status != "false"):
        return True
    from unlearn import cells, sweeping

    found = list(cells.expand("unlearn", outcomes.jobs, arguments))
    if plan:
        print("\n".join(sweeping.plan(found)))
        return False
    if status != "false":
        sweeping.report(found, watching=status == "watch")
        return False
    outcomes.progress = sweeping.Progress(found)
    if outcomes.progress.recorded and asked.get("force") != "true":
        say(f"{outcomes.progress.recorded} of {len(found)} cells are recorded already")
    return True


def _run(name: str, job: str, outcomes: Outcomes) -> None:
    import hydra

    from unlearn.config import config_dir, register

    register()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise what goes wrong, print no traceback
    command = Task(name, job, outcomes)

    def task(config: DictConfig) -> Any:
        return command(config)

    carrier: Any = task  # what our sweeper and launchers read
    carrier.task = command
    hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)(task)()


@dataclass
class Task:
    """What hydra calls for every job, with the account of all; other processes get a copy."""

    name: str
    function: str
    outcomes: Outcomes

    def __call__(self, config: DictConfig) -> Any:
        """Run one job."""
        return _one(config, self.name, self.function, self.outcomes)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process, which does not know our schemas and resolver yet."""
        from unlearn.config import register

        register()
        vars(self).update(state)

    def elsewhere(self) -> "Task":
        """Return a copy for another process, which counts from nothing and announces nothing."""
        return replace(self, outcomes=Outcomes(self.outcomes.jobs[:2], quiet=True))

    def due(self, number: int) -> bool:
        """Say whether a job still has to run: it may be recorded, or another process at it."""
        progress = self.outcomes.progress
        cell = progress.cells[number] if progress else None
        forced = any(o.lower() == "force=true" for o in self.outcomes.jobs[number])
        return cell is None or not (cell.busy() or (cell.recorded() and not forced))

    def announce(self, overrides: Sequence[str]) -> None:
        """Say that a job begins in another process."""
        say(f"[{_how_far(self.outcomes)}] {_asked(overrides)}")

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


def _build(node: Any) -> Any:
    """Make a node's object; one function for all jobs, since data sets are remembered by it."""
    from hydra.utils import instantiate

    return instantiate(node, _convert_="all")


def _job(config: DictConfig, *, brief: bool) -> Job:
    from hydra.core.hydra_config import HydraConfig

    from unlearn.config import plain, run_id

    content = plain(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    return Job(content, run_id(config), folder, content["names"], _build, brief)


def _one(config: DictConfig, name: str, function: str, outcomes: Outcomes) -> Any:
    """Run one job; problems are counted, so that the jobs after it go on."""
    job = _job(config, brief=outcomes.several)
    outcomes.started += 1
    if outcomes.several and not outcomes.quiet:
        _announce(outcomes)
    if name != "unlearn":
        return _attempt(job, function, outcomes)
    if job.config["tune"]["trials"]:
        best = _attempt(job, "tune_job", outcomes)
        _clean(job.folder)
        return best
    job.config.pop("tune")  # no part of a run's row
    if not job.config["force"] and _recorded(job):
        outcomes.started -= 1
        return None
    from filelock import Timeout

    from unlearn.cells import claim

    try:
        with claim(job.folder).acquire(timeout=0):
            return _attempt(job, function, outcomes)
    except Timeout:
        say(f"another process is at this run: {job.folder}")
        outcomes.started -= 1
    return None


def _announce(outcomes: Outcomes) -> None:
    from hydra.core.hydra_config import HydraConfig

    changed = " ".join(HydraConfig.get().overrides.task)
    say(f"[{_how_far(outcomes)}] {changed}")


def _asked(overrides: Sequence[str]) -> str:
    return " ".join(o for o in overrides if not o.startswith(("hydra.", "hydra/")))


def _how_far(outcomes: Outcomes) -> str:
    if outcomes.progress is not None:
        return outcomes.progress.line(outcomes.bad)
    return f"{outcomes.started}/{len(outcomes.jobs)}"


def _attempt(job: Job, function: str, outcomes: Outcomes) -> Any:
    try:
        from unlearn import run, tuning

        call: Callable[[Job], Any] = getattr(tuning if function == "tune_job" else run, function)
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
    path = job.folder / "row-0.json"
    if not path.exists():
        return False
    try:
        row = json.loads(path.read_text())
    except ValueError:  # not written by us: run again
        return False
    shown = ("healed", "utility", "healed_utility")
    values = [f"{k} {row[k]:.3f}" for k in shown if row.get(k) is not None]
    say(
        f"already recorded: {row['method']} on {row['dataset']}, {row['corruption']}, discovery "
        f"{row['discovery']}: {', '.join(values) or row['status']} ({job.folder}); "
        "force=true runs it again"
    )
    return True
