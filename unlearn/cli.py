"""The three commands: check first, then let hydra run the jobs, one clear line per problem."""

import os
import signal
import sys
from dataclasses import replace
from typing import Any, NoReturn

from omegaconf import DictConfig

from unlearn.core.errors import ConfigError, interrupted
from unlearn.orchestration.messages import say
from unlearn.orchestration.outcomes import Outcomes
from unlearn.orchestration.runner import Task


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
    from unlearn.config import composition, launcher_choice
    from unlearn.config.command_line import flags_first, implied, parse

    argv = implied(name, argv)
    arguments = parse(argv)
    if arguments.help or arguments.show == "job":
        from unlearn.config import help

        first = replace(arguments, overrides=composition.points(name, arguments)[0])  # of a sweep
        if arguments.help:
            print(help.show_help(name, first))
        else:
            print(help.show_config(name, first, resolve="--resolve" in argv))
        return None
    bases = composition.bases_of(name, arguments)
    jobs = composition.preflight(name, arguments, bases)
    launcher = launcher_choice.chosen(name, arguments, jobs)
    sys.argv[1:] = [*flags_first(argv, arguments), *launcher]
    outcomes = Outcomes(jobs)
    return outcomes if name != "unlearn" or _sweep(arguments, outcomes, bases) else None


def _sweep(arguments: Any, outcomes: Outcomes, bases: Any) -> bool:
    """Expand a sweep into cells; answer plan and status; say whether anything is to be run."""
    asked = {o.partition("=")[0]: o.partition("=")[2].lower() for o in outcomes.jobs[0]}
    plan, status = asked.get("plan", "false") == "true", asked.get("status", "false")
    studies = asked.get("tune.trials", "0") != "0"
    if studies or not (outcomes.several or plan or status != "false"):
        return True
    from unlearn.orchestration import cells, progress

    found = cells.packed(list(cells.expand("unlearn", outcomes.jobs, arguments, bases)))
    outcomes.jobs = [list(cell.overrides) for cell in found]
    if plan:
        print("\n".join(progress.plan(found)))
        return False
    if status != "false":
        progress.report(found, watching=status == "watch")
        return False
    outcomes.progress = progress.Progress(found)
    if outcomes.progress.recorded and asked.get("force") != "true":
        say(f"{outcomes.progress.recorded} of {len(found)} cells are recorded already")
    return True


def _run(name: str, job: str, outcomes: Outcomes) -> None:
    import hydra

    from unlearn.config.registration import config_dir, register

    register()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise what goes wrong, print no traceback
    command = Task(name, job, outcomes)

    def task(config: DictConfig) -> Any:
        return command(config)

    carrier: Any = task  # what our sweeper and launchers read
    carrier.task = command
    hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)(task)()
