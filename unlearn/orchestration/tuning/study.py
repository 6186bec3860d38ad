"""A study on disk, shared by several processes; finished trials survive a kill.

Optuna (Akiba et al., 2019, arXiv 1907.10902) keeps the trials and draws the settings, by TPE
(Bergstra et al., 2011) after a few at random. The budget is ours: a study has numbered
places; a process that works on one holds its lock, which the system releases if the process dies.
So the budget is met exactly. Each place has its own sampler seed: a setting drawn
before a kill is drawn again afterwards.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import BaseFileLock, FileLock, Timeout
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from unlearn.methods.components.healing_score import ScoreParts
from unlearn.orchestration.tuning.search_space import Range

NUM_STARTUP_TRIALS = 8  # random settings before TPE: a third of the usual 24 trials
NUM_WARMUP_TASKS = 2  # cells to score before a trial may be pruned
FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)


class _JournalLock(JournalFileSymlinkLock):
    """A lock that the system releases; Optuna's own outlives a killed process by half a minute."""

    def __init__(self, journal: Path) -> None:
        """Store the paths."""
        self._journal = journal
        self._lock = FileLock(f"{journal}.lock")

    def acquire(self) -> bool:
        """Wait for the lock, and remove an unfinished line left by a crash."""
        self._lock.acquire()
        content = self._journal.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(self._journal, content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


@dataclass(frozen=True)
class FinishedTrial:
    """A finished trial.

    Attributes:
        place: Index of the trial, from 0.
        score: Mean over the scored cells.
        pruned: Whether it was stopped early.
        overrides: The setting, as Hydra overrides.
        scores: By cell.
        seconds: Wall time.
    """

    place: int
    score: float
    pruned: bool
    overrides: tuple[str, ...]
    scores: dict[str, ScoreParts]
    seconds: float


def open_study(folder: Path, *, prune: bool) -> optuna.Study:
    """Return the study of a folder, new or existing."""
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # we log it ourselves
    path = folder / "journal.log"
    storage = JournalStorage(JournalFileBackend(str(path), _JournalLock(path)))
    pruner = MedianPruner(NUM_STARTUP_TRIALS, NUM_WARMUP_TASKS) if prune else NopPruner()
    return optuna.create_study(
        storage=storage,
        study_name="study",
        direction="maximize",
        pruner=pruner,
        load_if_exists=True,
    )


def list_finished_trials(study: optuna.Study) -> list[FinishedTrial]:
    """Return the finished trials, by place."""
    found = [_read_trial(t) for t in study.get_trials(deepcopy=False, states=FINISHED_STATES)]
    return sorted(found, key=lambda f: f.place)


def _read_trial(trial: FrozenTrial) -> FinishedTrial:
    notes = trial.user_attrs
    scores = {name: ScoreParts(kept, healed) for name, (kept, healed) in notes["cells"].items()}
    return FinishedTrial(
        place=notes["place"],
        score=mean_score(scores),
        pruned=trial.state == TrialState.PRUNED,
        overrides=tuple(notes["overrides"]),
        scores=scores,
        seconds=notes["seconds"],
    )


def select_best_trial(trials: Sequence[FinishedTrial]) -> FinishedTrial:
    """Return the best trial that was scored on all cells; the first of equals."""
    return max((t for t in trials if not t.pruned), key=lambda t: t.score)


ScoreCalls = Mapping[str, Callable[[], ScoreParts]]
"""Functions that score a setting, by cell."""


def run_free_trials(
    folder: Path,
    study: optuna.Study,
    ranges: Sequence[Range],
    calls: Callable[[Sequence[str]], ScoreCalls],
    *,
    trials: int,
    seed: int,
) -> Iterator[FinishedTrial]:
    """Run the free places below ``trials`` one after the other, and yield the finished trials.

    Args:
        folder: The study's.
        study: Of ``open_study``.
        ranges: The search space.
        calls: Maps a setting (overrides) to the functions that score it.
        trials: The budget, shared by all processes.
        seed: Of the search.
    """
    while (found := _claim_free_place(folder, study, trials)) is not None:
        place, lock = found
        try:
            study.sampler = TPESampler(
                n_startup_trials=NUM_STARTUP_TRIALS, seed=1000 * seed + place
            )
            yield _run_trial(study, place, ranges, calls)
        finally:
            lock.release()


def _claim_free_place(
    folder: Path, study: optuna.Study, trials: int
) -> tuple[int, BaseFileLock] | None:
    """Return the first place that is neither finished nor locked, and its acquired lock."""
    places = folder / "places"
    places.mkdir(exist_ok=True)
    for place in range(trials):
        if any(f.place == place for f in list_finished_trials(study)):
            continue
        lock = FileLock(places / f"{place:04d}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        if not any(f.place == place for f in list_finished_trials(study)):  # by another process
            return place, lock
        lock.release()
    return None


def _run_trial(
    study: optuna.Study,
    place: int,
    ranges: Sequence[Range],
    calls: Callable[[Sequence[str]], ScoreCalls],
) -> FinishedTrial:
    for old in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if old.user_attrs.get("place") == place:
            study.tell(old.number, state=TrialState.FAIL)  # left by a killed process
    started = time.perf_counter()
    trial = study.ask()
    trial.set_user_attr("place", place)
    overrides = [r.suggest_override(trial) for r in ranges]
    trial.set_user_attr("overrides", overrides)
    scores: dict[str, ScoreParts] = {}
    pruned = False
    try:
        for step, (name, call) in enumerate(calls(overrides).items()):
            scores[name] = call()
            trial.report(mean_score(scores), step)
            pruned = trial.should_prune()
            if pruned:
                break
    except Exception:
        study.tell(trial, state=TrialState.FAIL)
        raise
    trial.set_user_attr("cells", {n: (s.kept, s.healed) for n, s in scores.items()})
    trial.set_user_attr("seconds", time.perf_counter() - started)
    # Written last, so that a killed trial is repeated.
    state = TrialState.PRUNED if pruned else TrialState.COMPLETE
    return _read_trial(study.tell(trial, None if pruned else mean_score(scores), state=state))


def mean_score(scores: Mapping[str, ScoreParts]) -> float:
    """Return the mean score of the cells."""
    return sum(s.value for s in scores.values()) / len(scores)
