"""Automatic choice of the method, by samples of the forget set that the methods do not see.

Half of the forget set is held out: it stays in the retain set with its labels and stands for the bad
samples that nobody found. Each candidate unlearns the other half and is scored on the held-out one
(``HealingScore``: no truth, no test data). The best candidate then unlearns the whole forget set; the
original is a candidate as well.
"""

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from unlearn.core.errors import CollapsedError
from unlearn.core.types import Fit, Request, Unlearner, join_sets
from unlearn.methods.base import find_spread_obstacle
from unlearn.methods.components.floors import Floors
from unlearn.methods.components.healing_score import (
    HealingScore,
    ScoreParts,
    build_healing_score,
)
from unlearn.methods.components.removal_stop import RemovalStop
from unlearn.methods.components.samples import split_positions
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.inference import compute_accuracy

log = logging.getLogger(__name__)

MIN_LISTED = 8
"""Least number of listed samples from which half can be held out and still say something."""
ORIGINAL = "original"


@dataclass(frozen=True)
class _Trial:
    """A candidate on the held-out half.

    Attributes:
        score: Its score.
        lost: Share of the held-out samples that no longer get their listed label.
        seconds: Duration of its unlearning.
    """

    score: ScoreParts
    lost: float = 0.0
    seconds: float = 0.0


class Auto:
    """Try candidates on half of the forget set, unlearn all of it with the best.

    Attributes:
        role: Role in comparisons, see ``UnlearningMethod``.
        uses_forget_set: Whether the result depends on the forget set.
        uses_retain_set: Whether the result depends on the retain set.
        needs_trusted: False: candidates with a trusted set could not be compared with others.
        notes: Values recorded in the run's row, JSON-serialisable.
    """

    role: ClassVar[str] = "unlearning"
    uses_forget_set: ClassVar[bool] = True
    uses_retain_set: ClassVar[bool] = True
    needs_trusted: ClassVar[bool] = False

    def __init__(
        self, *, candidates: Mapping[str, Unlearner], default: str, force: bool, seed: int
    ) -> None:
        """Store the candidates.

        Args:
            candidates: Methods by name.
            default: Candidate for forget sets that are too small to hold half of them out.
            force: Unlearn although the forget set is not memorized beyond its floor.
            seed: Seed of the halves.

        Raises:
            ValueError: If ``default`` is no candidate.
        """
        if default not in candidates:
            raise ValueError(
                f"method.default must be one of the candidates {', '.join(candidates)}, got {default}"
            )
        with_set = [
            name for name, one in candidates.items() if getattr(one, "needs_trusted", False)
        ]
        if with_set:
            raise ValueError(
                f"method.candidates must not need a trusted set, got {', '.join(with_set)}"
            )
        self.candidates = dict(candidates)
        self.default = default
        self.force = force
        self.seed = seed
        self.notes: dict[str, Any] = {}

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Leave out the candidates that do not support the network, before any computation.

        Args:
            model: The network, on any device.
            image: Example input, (B, C, H, W), on the same device.

        Raises:
            ValueError: If no candidate is left.
        """
        for name, candidate in list(self.candidates.items()):
            check = getattr(candidate, "check_model", None)
            try:
                if check is not None:
                    check(model, image)
            except ValueError as reason:
                log.info("method=auto leaves out %s: %s", name, reason)
                del self.candidates[name]
        if not self.candidates:
            raise ValueError("method=auto: no candidate supports the network")
        if self.default not in self.candidates:
            self.default = next(iter(self.candidates))

    def get_spread_obstacle(self, parts: int) -> str | None:
        """Return why a candidate cannot be trained on batches in parts; None if all can."""
        return find_spread_obstacle(self.candidates.values(), parts)

    def get_monitored_modes(self, model: nn.Module) -> dict[str, bool]:
        """Return the modes to monitor: the model, which all candidates share."""
        return {"model": False}

    def unlearn(self, model: nn.Module, request: Request, fit: Fit) -> nn.Module:
        """Return the model that the chosen candidate makes of the original."""
        self.check_model(model, next(request.forget.batches(2)).image)
        original = remove_extra_channels(model)
        stop = RemovalStop("auto", force=self.force)
        stop.start(original, request, compute_accuracy, self.notes)
        if stop.nothing:
            self.notes["chosen"] = ORIGINAL
            return original
        if len(request.forget) < MIN_LISTED:
            log.warning(
                "method=auto uses %s without a comparison: %d listed samples are too few to hold half "
                "of them out (at least %d); what is not listed cannot be judged",
                self.default, len(request.forget), MIN_LISTED,
            )  # fmt: skip
            name = self.default
        else:
            assert stop.floors is not None
            name = self._choose(model, request, stop.floors, fit)
        self.notes["chosen"] = name
        if name == ORIGINAL:
            return original
        chosen = copy.deepcopy(self.candidates[name])
        healed = chosen.unlearn(model, request, fit)
        self.notes |= {f"{name}/{k}": v for k, v in getattr(chosen, "notes", {}).items()}
        return healed

    def _choose(self, model: nn.Module, request: Request, floors: Floors, fit: Fit) -> str:
        """Return the name of the candidate with the best score."""
        given, held = split_positions(len(request.forget), self.seed)
        half = hold_out(request, given, held)
        original = remove_extra_channels(model)
        listed = request.forget.rows(held.to(request.forget.label.device))
        score = build_healing_score(original, replace(request, forget=listed), floors.rows(held))
        trials = {ORIGINAL: _measure_trial(score, original, 0.0)}
        for number, (name, candidate) in enumerate(self.candidates.items(), 1):
            trials[name] = self._try(candidate, model, half, score, fit)
            log.info(
                "method=auto: %s (%d of %d) keeps %.2f and heals %.2f of the held-out half, %.0f s",
                name, number, len(self.candidates), trials[name].score.kept,
                trials[name].score.healed, trials[name].seconds,
            )  # fmt: skip
        best = max(trials, key=lambda name: trials[name].score.value)
        found = trials[best].score
        self.notes |= {f"score/{name}": trial.score.value for name, trial in trials.items()}
        self.notes |= {"held_out": len(held), "kept": found.kept, "healed": found.healed}
        self.notes["lost"] = trials[best].lost
        self.notes["trial_seconds"] = sum(trial.seconds for trial in trials.values())
        if best == ORIGINAL:
            log.warning(
                "method=auto: no candidate is better than the original on %d listed samples that they "
                "did not see; the original is returned; other candidates or options may do better",
                len(held),
            )
            return best
        lost = trials[best].lost
        log.info(
            "method=auto: %s is best (score %.2f). Of %d listed samples that it did not see, %.0f %% lost "
            "their listed label, and at least %.0f %% got the label that is expected without it: so much is "
            "to be expected of bad samples that nobody found",
            best, found.value, len(held), 100 * lost, 100 * min(lost, found.healed),
        )  # fmt: skip
        return best

    def _try(
        self, candidate: Unlearner, model: nn.Module, half: Request, score: HealingScore, fit: Fit
    ) -> _Trial:
        started = time.perf_counter()
        try:
            healed = copy.deepcopy(candidate).unlearn(copy.deepcopy(model), half, fit)
        except CollapsedError:
            seconds = time.perf_counter() - started
            return _Trial(ScoreParts(kept=0.0, healed=0.0), seconds=seconds)
        seconds = time.perf_counter() - started
        return _measure_trial(score, remove_extra_channels(healed).eval(), seconds)


def _measure_trial(score: HealingScore, model: nn.Module, seconds: float) -> _Trial:
    lost = 1 - compute_accuracy(model, score.listed)
    return _Trial(score.measure(model), lost, seconds)


def hold_out(request: Request, given: Tensor, held: Tensor) -> Request:
    """Return the request whose forget set is ``given``; what is held out belongs to the retain set."""
    device = request.forget.label.device
    retain = join_sets(request.retain, request.forget.rows(held.to(device)))
    return replace(request, forget=request.forget.rows(given.to(device)), retain=retain)
