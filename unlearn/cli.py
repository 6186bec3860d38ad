"""The three commands: check the config, then let hydra run the jobs; one line per problem."""

import os
import signal
import sys
from dataclasses import replace
from typing import Any, NoReturn

from omegaconf import DictConfig

from unlearn.core.allocator import use_huge_pages
from unlearn.core.errors import ConfigError, is_interruption
from unlearn.core.streams import describe_lost_output, protect_streams
from unlearn.core.words import count_noun
from unlearn.orchestration.messages import print_error
from unlearn.orchestration.outcomes import JobCounts
from unlearn.orchestration.runner import JobRunner


def train_main() -> None:
    """Pre-train (``python train.py``, ``unlearn-train``)."""
    _run_command("train", "pretrain_job")


def unlearn_main() -> None:
    """Unlearn (``python unlearn.py``, ``unlearn-run``)."""
    _run_command("unlearn", "unlearn_job")


def evaluate_main() -> None:
    """Evaluate or summarise (``python evaluate.py``, ``unlearn-evaluate``)."""
    _run_command("evaluate", "evaluate_job")


class TerminatedError(KeyboardInterrupt):
    """Raised on SIGTERM, so that it is handled like Ctrl-C."""


def _raise_terminated(signum: int, frame: object) -> NoReturn:
    raise TerminatedError


def _run_command(name: str, job: str) -> None:
    protect_streams()
    use_huge_pages()
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        outcomes = _check_command(name, sys.argv[1:])
        if outcomes is None:
            sys.exit(_report_lost_output(1))
        _start_hydra(name, job, outcomes)
    except ConfigError as error:
        print_error(f"error: {error}")
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as error:
        if not is_interruption(error):
            raise
        print_error("interrupted; finished runs are kept, repeat the command to continue")
        sys.exit(143 if isinstance(error.__context__ or error, TerminatedError) else 130)
    except OSError as error:  # from hydra's own folders; a job handles its own
        print_error(f"error: {error}; UNLEARN_HOME sets the output folder")
        sys.exit(1)
    if outcomes.is_sweep:
        print_error(outcomes.format_summary())
    _report_lost_output(0)
    sys.exit(outcomes.exit_code())


def _report_lost_output(code: int) -> int:
    """Say that standard output was lost; return ``code`` if it was, else 0."""
    sys.stdout.flush()
    line = describe_lost_output()
    if line is not None:
        print_error(f"error: {line}" if code else f"{line}; results are recorded")
    return code if line is not None else 0


def _check_command(name: str, argv: list[str]) -> JobCounts | None:
    """Answer --help and --cfg, or check every job; None if there is nothing to run."""
    from unlearn.config import composition
    from unlearn.config.command_line import add_checkpoint_defaults, flags_first, parse_command_line

    argv = add_checkpoint_defaults(name, [_fetch_checkpoint(word) for word in argv])
    arguments = parse_command_line(argv, name)
    if arguments.completion:
        from unlearn.config import completion

        print(completion.complete(name, arguments))
        return None
    if arguments.help or arguments.show == "job":
        from unlearn.config import help

        first = replace(
            arguments, overrides=composition.expand_overrides(name, arguments)[0]
        )  # first job of a sweep
        if arguments.help:
            print(help.format_help(name, first))
        else:
            print(help.format_config(name, first, resolve="--resolve" in argv))
        return None
    if name == "evaluate" and "scale=small" in arguments.overrides:
        from unlearn.orchestration.reproduction import add_small_overrides

        before, arguments = arguments.overrides, add_small_overrides(arguments)
        argv = [*argv, *arguments.overrides[: len(arguments.overrides) - len(before)]]
    bases = composition.make_config_cache(name, arguments)
    jobs = composition.check_jobs(name, arguments, bases)
    launcher: list[str] = []
    if len(jobs) > 1:
        from unlearn.config.launcher_choice import choose_launcher

        launcher = choose_launcher(name, arguments, jobs)
    sys.argv[1:] = [*flags_first(argv, arguments), *launcher]
    outcomes = JobCounts(jobs)
    if name == "evaluate":
        return outcomes if len(jobs) > 1 or _run_needed(arguments, outcomes) else None
    return outcomes if name != "unlearn" or _expand_sweep(arguments, outcomes, bases) else None


def _fetch_checkpoint(word: str) -> str:
    """Return a word of the command line; a checkpoint of the Hub is downloaded, by its path."""
    if not word.startswith("checkpoint=hf://"):
        return word
    from unlearn.storage.hub import WEIGHT_FILES, download_file

    try:
        path = download_file(word.removeprefix("checkpoint="), WEIGHT_FILES, "checkpoint")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return f"checkpoint={path}"


def _run_needed(arguments: Any, outcomes: JobCounts) -> bool:
    """Run what a published experiment needs, or print its cost; return whether to evaluate."""
    keys = {word.partition("=")[0] for word in arguments.overrides}
    if not keys & {"experiment", "runs", "plan"}:
        return True
    from unlearn.orchestration import reproduction

    config = reproduction.read_experiment(arguments)
    found = reproduction.expand_runs(config, arguments)
    if config["plan"]:
        print("\n".join(reproduction.describe_cost(config, found)))
        return False
    if found:
        if config["run_missing"] and (failed := reproduction.run_missing(found)):
            print_error(
                f"{count_noun(failed, 'command')} ended with an error; comparing what is recorded"
            )
        outcomes.run_ids = [cell.run_id for cell in reproduction.list_cells(found)]
    return True


def _expand_sweep(arguments: Any, outcomes: JobCounts, bases: Any) -> bool:
    """Expand a sweep into cells and answer plan and status; return whether anything has to run."""
    asked = {o.partition("=")[0]: o.partition("=")[2].lower() for o in outcomes.jobs[0]}
    plan, status = asked.get("plan", "false") == "true", asked.get("status", "false")
    studies = asked.get("tune.trials", "0") != "0"
    if studies or not (outcomes.is_sweep or plan or status != "false"):
        return True
    from unlearn.orchestration import cells, progress

    found = cells.group_by_dataset(
        list(cells.expand_cells("unlearn", outcomes.jobs, arguments, bases))
    )
    outcomes.jobs = [list(cell.overrides) for cell in found]
    if plan:
        print("\n".join(progress.describe_plan(found)))
        return False
    if status != "false":
        progress.print_status(found, watching=status == "watch")
        return False
    outcomes.progress = progress.Progress(found)
    if outcomes.progress.recorded and asked.get("force") != "true":
        print_error(
            f"{outcomes.progress.recorded} of {count_noun(len(found), 'cell')} already recorded"
        )
    return True


def _start_hydra(name: str, job: str, outcomes: JobCounts) -> None:
    import hydra

    from unlearn.config.registration import config_dir, register_schemas

    register_schemas()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise errors instead of printing tracebacks
    command = JobRunner(name, job, outcomes)

    def run_job(config: DictConfig) -> Any:
        return command(config)

    carrier: Any = run_job  # read by our sweeper and launchers
    carrier.task = command
    hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)(run_job)()
