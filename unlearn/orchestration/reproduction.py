"""Runs the rows that a published experiment needs, before evaluate.py compares them."""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unlearn.config.command_line import Arguments, expand_shorthand, parse_command_line
from unlearn.config.composition import (
    check_jobs,
    compose_config,
    enable_composition,
    make_config_cache,
    resolve_config,
)
from unlearn.core.errors import ConfigError
from unlearn.core.scale import select_scale
from unlearn.core.words import count_noun
from unlearn.orchestration.cells import Cell, expand_cells
from unlearn.orchestration.messages import print_error
from unlearn.orchestration.progress import describe_plan

CARRIED = ("paths.", "trainer.", "stack=", "hydra/launcher=", "hydra.launcher.")
"""Beginnings of the words of an evaluation that its runs get too."""

START = "from unlearn.cli import unlearn_main; unlearn_main()"


@dataclass(frozen=True)
class NeededRuns:
    """One command line of unlearn.py and its cells.

    Attributes:
        words: The command line, without the program.
        cells: Its runs.
    """

    words: tuple[str, ...]
    cells: tuple[Cell, ...]

    def count_missing(self) -> int:
        """Return the number of cells without a row."""
        return sum(not cell.is_recorded() for cell in self.cells)


def add_small_overrides(arguments: Arguments) -> Arguments:
    """Return the command line with the overrides of the experiment's small variant, if it is chosen.

    Words of the command line win over those of the variant.
    """
    if "scale=small" not in arguments.overrides:
        return arguments
    content = _compose_content(arguments)
    small = (content.get("small") or {}).get("overrides") or []
    given = {word.partition("=")[0] for word in arguments.overrides}
    more = [expand_shorthand(str(w), arguments.command, arguments.folders) for w in small]
    own = [word for word in more if word.partition("=")[0] not in given]
    return replace(arguments, overrides=[*own, *arguments.overrides])


def _compose_content(arguments: Arguments) -> dict[str, Any]:
    with enable_composition(arguments.folders):
        return resolve_config(compose_config("evaluate", arguments.overrides, arguments.folders))


def read_experiment(arguments: Arguments) -> dict[str, Any]:
    """Return the resolved config of an evaluation at its scale.

    Raises:
        ConfigError: If its small variant is not one.
    """
    try:
        return select_scale(_compose_content(arguments))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def expand_runs(config: Mapping[str, Any], arguments: Arguments) -> list[NeededRuns]:
    """Return the runs that an evaluation needs; every command line is checked.

    Args:
        config: Resolved config at its scale: ``runs``, ``run_options``.
        arguments: The command line of evaluate.py, whose folders and hardware the runs share.

    Raises:
        ConfigError: If a command line is wrong.
    """
    shared = [word for word in arguments.overrides if word.startswith(CARRIED)]
    own = [f"--config-dir={folder}" for folder in arguments.folders[1:]]
    found, bases = [], None
    for line in config["runs"]:
        said = [*shlex.split(str(line)), *config["run_options"], *shared]
        last = {word.partition("=")[0]: number for number, word in enumerate(said)}
        kept = [w for number, w in enumerate(said) if last[w.partition("=")[0]] == number]
        words = ["--multirun", *own, *kept]
        try:
            asked = parse_command_line(words, "unlearn")
            bases = bases or make_config_cache("unlearn", asked)
            jobs = check_jobs("unlearn", asked, bases)
        except ConfigError as error:
            raise ConfigError(f"runs: '{line}': {error}") from error
        cells = expand_cells("unlearn", jobs, asked, bases)
        found.append(NeededRuns(tuple(words), tuple(cells)))
    return found


def list_cells(found: Sequence[NeededRuns]) -> list[Cell]:
    """Return the cells of all command lines, each once."""
    return list({cell.run_id: cell for runs in found for cell in runs.cells}.values())


def describe_cost(config: Mapping[str, Any], found: Sequence[NeededRuns]) -> list[str]:
    """Return lines that describe what an evaluation would run, without running anything."""
    lines = describe_plan(list_cells(found)) if found else ["no runs of unlearn.py are needed"]
    scores = config.get("compare_scores")
    if scores:
        lines.append(f"scores to compute: {', '.join(scores)}")
    return [*lines, f"stated cost: {config['cost']}"] if config.get("cost") else lines


def run_missing(found: Sequence[NeededRuns]) -> int:
    """Run the command lines that have cells without a row; return how many ended with an error."""
    failed = 0
    for number, runs in enumerate(found, 1):
        missing = runs.count_missing()
        if not missing:
            continue
        print_error(
            f"command {number} of {len(found)}: {count_noun(missing, 'cell')} to run: unlearn.py "
            f"{shlex.join(runs.words)}"
        )
        result = subprocess.run([sys.executable, "-c", START, *runs.words], check=False)
        if result.returncode in (130, 143, -2, -15):  # interrupted: so is this command
            raise KeyboardInterrupt
        failed += result.returncode != 0
    return failed
