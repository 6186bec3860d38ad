"""Runs a study: trials, log lines and output files."""

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from unlearn.config.command_line import read_running_command
from unlearn.config.help import command_name
from unlearn.core import environment
from unlearn.core.files import write_text_atomically
from unlearn.core.job import Job
from unlearn.methods.components.healing_score import ScoreParts
from unlearn.orchestration.cells import is_locked, run_lock
from unlearn.orchestration.tuning.files import find_changes, format_trials, format_tuned_file
from unlearn.orchestration.tuning.plan import ComposedConfig, StudyPlan, override_target
from unlearn.orchestration.tuning.scored_tasks import HeldOutTask, load_tasks
from unlearn.orchestration.tuning.study import (
    FinishedTrial,
    list_finished_trials,
    open_study,
    run_free_trials,
    select_best_trial,
)

log = logging.getLogger(__name__)


class SettingScorer:
    """Scores settings; cells are loaded on first use and cached."""

    def __init__(self, job: Job, plan: StudyPlan) -> None:
        """Store the configs of the cells."""
        self._job = job
        self._plan = plan
        self._cells: list[HeldOutTask] = []

    def __call__(self, overrides: Sequence[str]) -> Mapping[str, Callable[[], ScoreParts]]:
        """Return the functions that score a setting, by cell."""
        node = self._plan.compose_setting(overrides).content["method"]
        self._job.build(node)  # checks options before any training
        if not self._cells:
            jobs = [self._make_job(made) for made in self._plan.compose_cells()]
            self._cells = load_tasks(jobs, self._plan.tune["seed"])
        return {cell.name: partial(cell.score_method, self._job, node) for cell in self._cells}

    def _make_job(self, made: ComposedConfig) -> Job:
        content = made.content
        return Job(content, made.run_id, self._job.folder, content["names"], self._job.build)


def run_study(job: Job) -> float | None:
    """Run trials until none is free; see ``tune_job``."""
    _remove_left_folders(job.folder.parent)
    with run_lock(job.folder):  # shows other machines that the process lives
        return _run_trials(job)


def _remove_left_folders(results: Path) -> None:
    """Remove the folders ``tune-<pid>-...`` of killed studies; one with an error is kept."""
    for folder in results.glob("tune-*-*/"):
        name = re.fullmatch(r"tune-(\d+)-.+", folder.name)
        used = name is None or _is_alive(int(name[1])) or is_locked(folder)
        if not used and not (folder / "error.txt").exists():
            shutil.rmtree(folder, ignore_errors=True)
            log.info("removed %s, left by a study that was killed", folder)


def _is_alive(pid: int) -> bool:
    """Return whether a process of this machine has this id."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _run_trials(job: Job) -> float | None:
    environment.check_torchvision()
    tune = job.config["tune"]
    plan = StudyPlan(read_running_command(), tune)
    folder, trials = plan.study_folder, tune["trials"]
    if job.config["force"]:
        shutil.rmtree(folder, ignore_errors=True)
    study = open_study(folder, prune=tune["prune"])
    scorer = SettingScorer(job, plan)
    for done in run_free_trials(
        folder, study, plan.search_ranges, scorer, trials=trials, seed=tune["seed"]
    ):
        everything = list_finished_trials(study)
        write_text_atomically(folder / "trials.csv", format_trials(everything))
        _print_trial(plan, done, everything, trials)
    everything = list_finished_trials(study)
    left = trials - len([t for t in everything if t.place < trials])
    if left:
        log.info(
            "another process runs the last %d of %d trials and finishes the study", left, trials
        )
        return None
    winner = select_best_trial(everything)
    _save_winner(plan, winner, everything)
    return winner.score


def _print_trial(
    plan: StudyPlan, done: FinishedTrial, everything: Sequence[FinishedTrial], trials: int
) -> None:
    whole = [t.score for t in everything if not t.pruned]
    score = f"{done.score:.3f}" + " (pruned)" * done.pruned
    top = f" (best {max(whole):.3f})" if whole else ""
    log.info(
        "%s trial %d/%d: %s%s in %.0f s: %s",
        plan.file_stem, done.place + 1, trials, score, top, done.seconds, " ".join(done.overrides),
    )  # fmt: skip


def _save_winner(
    plan: StudyPlan, winner: FinishedTrial, everything: Sequence[FinishedTrial]
) -> None:
    """Write the best setting and the table of trials; log their paths and usage."""
    write_text_atomically(plan.study_folder / "trials.csv", format_trials(everything))
    chosen = plan.compose_setting(winner.overrides)
    ranges = [override_target(r.key).removeprefix("method.") for r in plan.search_ranges]
    tree = find_changes(chosen.content["method"], plan.lower_method_nodes(), ranges)
    command = " ".join([command_name("unlearn"), *plan.command])
    head = f"{command} ({len(everything)} settings, score {winner.score:.3f})"
    home = Path(plan.tune["folder"])
    path = home / plan.option_path
    write_text_atomically(path, format_tuned_file(tree, plan.describe_options(chosen), head))
    log.info(
        "best of %d settings, score %.3f: %s",
        len(everything), winner.score, " ".join(winner.overrides),
    )  # fmt: skip
    _draw_progress(plan.study_folder.parent)
    log.info(
        "%s (all trials: %s)%s",
        path,
        plan.study_folder / "trials.csv",
        _explain_use(plan, home, path),
    )


def _draw_progress(studies: Path) -> None:
    """Draw the best score so far of all studies of a folder."""
    from unlearn.reporting.figures.canvas import save_figure
    from unlearn.reporting.figures.search_progress import draw_search_progress, read_studies

    paths = save_figure(draw_search_progress(read_studies(studies)), studies / "progress")
    log.info("best score so far of each study: %s", ", ".join(map(str, paths)))


def _explain_use(plan: StudyPlan, home: Path, path: Path) -> str:
    """Return how later runs find a tuned file; hydra uses the first folder that has it."""
    for folder in plan.folders:
        if Path(folder).resolve() == home.resolve():
            return "; later runs use it" + f" with --config-dir {home}" * (
                folder != plan.folders[0]
            )
        other = Path(folder) / plan.option_path
        if other.is_file():
            return f"; {other} takes precedence, so move the file there to use it"
    return f"; to use it, add --config-dir {home}"
