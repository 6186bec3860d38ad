"""The study from beginning to end: trials, lines, files."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from unlearn.config.command_line import running
from unlearn.config.help import called
from unlearn.core import environment
from unlearn.core.files import write_text_atomically
from unlearn.core.job import Job
from unlearn.orchestration.tuning.files import changed, table, text
from unlearn.orchestration.tuning.plan import Composed, Plan, named
from unlearn.orchestration.tuning.scored_tasks import Cell, Score, load
from unlearn.orchestration.tuning.study import Finished, best, fill, finished, open_study

log = logging.getLogger(__name__)


class Scorer:
    """Scores settings; cells are made when the first is asked for, and kept."""

    def __init__(self, job: Job, plan: Plan) -> None:
        """Keep what cells are made of."""
        self._job = job
        self._plan = plan
        self._cells: list[Cell] = []

    def __call__(self, overrides: Sequence[str]) -> Mapping[str, Callable[[], Score]]:
        """Return the calls that score a setting, by cell."""
        node = self._plan.setting(overrides).content["method"]
        self._job.build(node)  # refuses wrong options before anything is trained
        if not self._cells:
            jobs = [self._of(made) for made in self._plan.cells()]
            self._cells = load(jobs, self._plan.tune["seed"])
        return {cell.name: partial(cell.score, self._job, node) for cell in self._cells}

    def _of(self, made: Composed) -> Job:
        content = made.content
        return Job(content, made.run_id, self._job.folder, content["names"], self._job.build)


def conduct(job: Job) -> float | None:
    """Work on the study until no trial is free; see ``tune_job``."""
    environment.check_pair()
    tune = job.config["tune"]
    plan = Plan(running(), tune)
    folder, trials = plan.folder, tune["trials"]
    if job.config["force"]:
        shutil.rmtree(folder, ignore_errors=True)
    study = open_study(folder, prune=tune["prune"])
    scorer = Scorer(job, plan)
    for done in fill(folder, study, plan.ranges, scorer, trials=trials, seed=tune["seed"]):
        everything = finished(study)
        write_text_atomically(folder / "trials.csv", table(everything))
        _say(plan, done, everything, trials)
    everything = finished(study)
    left = trials - len([t for t in everything if t.place < trials])
    if left:
        log.info("another process works on the last %d of %d trials, and ends it", left, trials)
        return None
    winner = best(everything)
    _keep(plan, winner, everything)
    return winner.score


def _say(plan: Plan, done: Finished, everything: Sequence[Finished], trials: int) -> None:
    whole = [t.score for t in everything if not t.pruned]
    score = f"{done.score:.3f}" + " (pruned)" * done.pruned
    top = f" (best {max(whole):.3f})" if whole else ""
    log.info(
        "%s trial %d/%d: %s%s in %.0f s: %s",
        plan.stem, done.place + 1, trials, score, top, done.seconds, " ".join(done.overrides),
    )  # fmt: skip


def _keep(plan: Plan, winner: Finished, everything: Sequence[Finished]) -> None:
    """Write the best setting and the table, and say where they are and how they are used."""
    write_text_atomically(plan.folder / "trials.csv", table(everything))
    chosen = plan.setting(winner.overrides)
    ranges = [named(r.key).removeprefix("method.") for r in plan.ranges]
    tree = changed(chosen.content["method"], plan.grounds(), ranges)
    command = " ".join([called("unlearn"), *plan.command])
    head = f"{command} ({len(everything)} settings, score {winner.score:.3f})"
    home = Path(plan.tune["folder"])
    path = home / "tuned" / f"{plan.stem}.yaml"
    write_text_atomically(path, text(tree, plan.notes(chosen), head))
    log.info(
        "best of %d settings, score %.3f: %s",
        len(everything), winner.score, " ".join(winner.overrides),
    )  # fmt: skip
    log.info("%s (all trials: %s)%s", path, plan.folder / "trials.csv", _remedy(plan, home, path))


def _remedy(plan: Plan, home: Path, path: Path) -> str:
    """Return how later runs find a tuned file: hydra takes the first folder that has it."""
    for folder in plan.folders:
        if Path(folder).resolve() == home.resolve():
            return "; later runs use it" + f" with --config-dir {home}" * (
                folder != plan.folders[0]
            )
        if (Path(folder) / "tuned" / path.name).is_file():
            return f"; {Path(folder) / 'tuned' / path.name} comes first, so move it there to use it"
    return f"; to use it, add --config-dir {home}"
