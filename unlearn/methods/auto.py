"""Automatic choice of the method, by samples of the forget set that the methods do not see.

Half of the forget set is held out: it stays in the retain set with its labels and stands for the bad
samples that nobody found. Candidates unlearn the other half and are scored on the held-out one
(``trial_scores``: no truth, no test data); the better ones go on with other halves. The best then
unlearns the whole forget set; the original is a candidate as well.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from unlearn.core.types import Fit, Request, Unlearner
from unlearn.methods.base import find_spread_obstacle
from unlearn.methods.components.floors import Floors
from unlearn.methods.components.healing_score import HealingScore, build_healing_score
from unlearn.methods.components.list_estimates import (
    describe_list,
    order_candidates,
    rank_arms,
)
from unlearn.methods.components.race import Race
from unlearn.methods.components.race_notes import summarize_best, summarize_race
from unlearn.methods.components.removal_stop import RemovalStop
from unlearn.methods.components.samples import select_evenly_spaced
from unlearn.methods.components.trial_scores import (
    ArmScore,
    expect_classes,
    score_arm,
)
from unlearn.methods.components.trials import (
    MAX_MEASURED,
    Arm,
    Trial,
    TrialStore,
    check_trial,
    count_images,
    get_rate,
    hold_out,
    prepare_arm,
    run_trial,
    run_unstored,
    split_list,
    unlearn_counted,
)
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.inference import compute_accuracy, compute_logits

log = logging.getLogger(__name__)

MIN_LISTED = 8
"""Least number of listed samples from which half can be held out and still say something."""
MAX_SHARE = 0.5
"""Largest share of the budget that one trial, or the final unlearning, may take."""
ORIGINAL = "original"


class Auto:
    """Try candidates on halves of the forget set, unlearn all of it with the best.

    Attributes:
        role: Role in comparisons, see ``UnlearningMethod``.
        uses_forget_set: Whether the result depends on the forget set.
        uses_retain_set: Whether the result depends on the retain set.
        needs_trusted: False: candidates with a trusted set could not be compared with others.
        notes: Values recorded in the run's row, JSON-serialisable.
        store: Keeps finished trials, see ``TrialStore``.
        evidence: Expected healed x utility by method, by level of regularity; empty: none is known.
    """

    role: ClassVar[str] = "unlearning"
    uses_forget_set: ClassVar[bool] = True
    uses_retain_set: ClassVar[bool] = True
    needs_trusted: ClassVar[bool] = False

    def __init__(
        self,
        *,
        candidates: Mapping[str, Unlearner],
        default: str,
        force: bool,
        seed: int,
        budget: float | None,
        retraining_epochs: int,
        factors: Sequence[float],
        rates: Mapping[str, Sequence[float]],
    ) -> None:
        """Store the candidates.

        Args:
            candidates: Methods by name.
            default: Candidate for forget sets that are too small to hold half of them out.
            force: Unlearn although the forget set is not memorized beyond its floor.
            seed: Seed of the halves.
            budget: Images of all trials, in units of one retraining.
            retraining_epochs: Epochs of one retraining.
            factors: Further learning rates to try, as factors on each candidate's own.
            rates: Range of the learning rate by candidate; settings outside are not tried.

        Raises:
            ValueError: If ``default`` is no candidate, or a candidate needs a trusted set.
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
        if budget is None or budget <= 0:
            raise ValueError(f"method.budget must be above 0, got {budget}")
        self.candidates = dict(candidates)
        self.default = default
        self.force = force
        self.seed = seed
        self.budget = budget
        self.retraining_epochs = retraining_epochs
        self.factors = tuple(factors)
        self.rates = dict(rates)
        self.notes: dict[str, Any] = {}
        self.store: TrialStore = run_unstored
        self.evidence: Mapping[str, Mapping[str, float]] = {}

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
        self.notes |= {"auto/method": ORIGINAL, "auto/tried": "", "auto/score": None}
        if stop.nothing:
            return original
        assert stop.floors is not None
        facts = describe_list(request, stop.floors, stop.forget_accuracy)
        self.notes |= {f"auto/{key}": value for key, value in facts.items()}
        unit = self.retraining_epochs * (len(request.forget) + len(request.retain))
        if len(request.forget) < MIN_LISTED:
            log.warning(
                "nothing can be proved with %d listed samples (at least %d): method=auto uses %s, which "
                "fails least, without a comparison; what is not listed cannot be judged",
                len(request.forget), MIN_LISTED, self.default,
            )  # fmt: skip
            ranked = [Arm(self.default)]
        else:
            ranked = self._choose(model, request, stop.floors, fit, unit)
        if not ranked:
            return original
        score = build_healing_score(original, _limit_retain(request), stop.floors)
        least = score.measure(original).value

        def is_better(healed: nn.Module) -> bool:
            return score.measure(healed).value > least

        for arm in ranked:
            healed = self._heal(arm, model, request, is_better, fit, unit)
            if healed is not None:
                return healed
        return original

    def _heal(
        self,
        arm: Arm,
        model: nn.Module,
        request: Request,
        is_better: Callable[[nn.Module], bool],
        fit: Fit,
        unit: float,
    ) -> nn.Module | None:
        """Return the model that an arm makes with the whole list; None if the original scores more."""
        most = MAX_SHARE * self.budget * unit
        method = prepare_arm(self.candidates[arm.name], arm, request, most)
        healed, images = unlearn_counted(method, model, request, fit)
        self.notes["auto/heal_cost"] = self.notes.get("auto/heal_cost", 0.0) + images / unit
        if healed is None or not is_better(healed):
            log.warning(
                "method=auto: %s with the whole list leaves a model that is no better than the original",
                arm.label,
            )
            return None
        self.notes["auto/method"] = arm.label
        self.notes |= {f"{arm.name}/{k}": v for k, v in getattr(method, "notes", {}).items()}
        return healed

    def _choose(
        self, model: nn.Module, request: Request, floors: Floors, fit: Fit, unit: float
    ) -> list[Arm]:
        """Return the arms that are better than the original, the best first."""
        original = remove_extra_channels(model)
        listed, size = request.forget, len(request.forget)
        before = compute_logits(original, listed).argmax(1).cpu()
        measured = _limit_retain(request)
        most = MAX_SHARE * self.budget * unit

        def run(arm: Arm, split: int) -> Trial:
            given, held = split_list(size, split, self.seed)
            half = hold_out(request, given, held)
            own = replace(measured, forget=listed.rows(held.to(listed.label.device)))
            method = prepare_arm(self.candidates[arm.name], arm, half, most)
            who = {"candidate": arm.name, "factor": arm.factor, "split": split, "seed": self.seed}
            who["most"] = most
            score: HealingScore = build_healing_score(original, own, floors.rows(held))
            trial = self.store(who, lambda: run_trial(method, model, half, score, held, fit))
            return check_trial(trial, size, listed.num_classes)

        def rate(trials: Mapping[Arm, Sequence[Trial]]) -> dict[Arm, ArmScore]:
            every = [trial for own in trials.values() for trial in own]
            return {
                arm: score_arm(
                    own, before, expect_classes(floors, listed.label, every, own), listed, floors,
                    wrong_labels=request.wrong_labels,
                )
                for arm, own in trials.items()
            }  # fmt: skip

        def cost(arm: Arm) -> float:
            return min(most, count_images(self.candidates[arm.name], request))

        def rank(scores: Mapping[Arm, ArmScore]) -> list[Arm]:
            return rank_arms(scores, self.evidence.get(self.notes["auto/regularity"], {}))

        race = Race(run, rate, rank, cost, self.budget * unit)
        scores = race.hold(self._list_arms())
        self.notes |= summarize_race(race, scores, unit)
        better = [arm for arm in rank(scores) if scores[arm].better]
        if better:
            self.notes |= summarize_best(better[0], race, scores, request, floors)
        else:
            log.warning(
                "method=auto: no candidate is better than the original by more than its standard error on "
                "listed samples that they did not see; the original is returned; other candidates or "
                "options may do better",
            )
        return better

    def _list_arms(self) -> list[Arm]:
        """Return candidates that suit, then their settings, in the order of preference."""
        level = self.notes["auto/regularity"]
        names = order_candidates(self.candidates, self.evidence.get(level, {}))
        arms = [Arm(name) for name in names]
        for name in names:
            rate, span = get_rate(self.candidates[name]), self.rates.get(name)
            if rate is not None and span is not None:
                arms += [Arm(name, f) for f in self.factors if span[0] <= rate * f <= span[1]]
        return arms


def _limit_retain(request: Request) -> Request:
    return replace(request, retain=select_evenly_spaced(request.retain, MAX_MEASURED))
