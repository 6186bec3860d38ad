"""Successive halving of candidates and settings within a budget of trained images.

In the first round each arm unlearns one half of the list and is scored on the other; the better half
of the arms goes on to the next split, and so on until one is left. The best is then tried once more
with the halves exchanged, so that each listed sample was held out. (Jamieson and Talwalkar, arXiv
1502.07943; the resource is the number of splits, since most methods cannot be continued.)
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from unlearn.methods.components.trial_scores import ArmScore
from unlearn.methods.components.trials import Arm, Trial

log = logging.getLogger(__name__)

MAX_SPLITS = 4
"""Splits of the list at most: more say little that is new."""


@dataclass
class Race:
    """Runs trials and keeps account of their cost.

    Attributes:
        run: Returns the trial of an arm on a split.
        score: Returns the score of each arm from the trials of all.
        rank: Returns the arms of some scores, the best first.
        cost: Images that a trial of an arm is expected to train on.
        budget: Images of all trials together; the first trial of all is run in any case.
        trials: Trials by arm, in the order of the splits.
        spent: Images so far.
        seconds: Seconds so far.
        left_out: Labels of arms that were not tried, for want of budget.
    """

    run: Callable[[Arm, int], Trial]
    score: Callable[[Mapping[Arm, Sequence[Trial]]], dict[Arm, ArmScore]]
    rank: Callable[[Mapping[Arm, ArmScore]], list[Arm]]
    cost: Callable[[Arm], float]
    budget: float
    trials: dict[Arm, list[Trial]] = field(default_factory=dict)
    spent: float = 0.0
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)

    def hold(self, arms: Sequence[Arm]) -> dict[Arm, ArmScore]:
        """Run the race; return the scores of the arms that were tried.

        Args:
            arms: In the order of preference: the first is always tried.
        """
        reserve = self.cost(arms[0])  # the leader's second trial
        for number, arm in enumerate(arms):
            if number and self.spent + self.cost(arm) + reserve > self.budget:
                self.left_out.append(arm.label)
                continue
            self._try(arm, 0, reserve + sum(self._fits(one) for one in arms[number + 1 :]))
        scores = self.score(self.trials)
        alive = list(self.trials)
        for split in range(1, MAX_SPLITS):
            alive = self._select(alive, scores)
            for number, arm in enumerate(alive):
                waiting = sum(self.cost(one) for one in alive[number + 1 :])
                if self.spent + self._seen_cost(arm) <= self.budget:
                    self._try(arm, split, waiting)
            scores = self.score(self.trials)
            if len(alive) == 1 and split % 2 == 1:
                break  # each listed sample was held out
        return scores

    def _select(self, alive: Sequence[Arm], scores: Mapping[Arm, ArmScore]) -> list[Arm]:
        """Return the better half of the arms, best first."""
        ranked = self.rank({arm: scores[arm] for arm in alive})
        return ranked[: math.ceil(len(ranked) / 2)]

    def _seen_cost(self, arm: Arm) -> float:
        """Return the images of an arm's last trial."""
        return self.trials[arm][-1].images

    def _fits(self, arm: Arm) -> float:
        cost = self.cost(arm)
        return cost if self.spent + cost <= self.budget else 0.0

    def _try(self, arm: Arm, split: int, waiting: float) -> None:
        trial = self.run(arm, split)
        self.trials.setdefault(arm, []).append(trial)
        self.spent += trial.images
        self.seconds += trial.seconds
        waiting = min(waiting, max(0.0, self.budget - self.spent))
        left = waiting * self.seconds / self.spent if self.spent else 0.0
        log.info(
            "method=auto: tried %s on split %d of the list, %.0f s; %.0f %% of the budget is used, "
            "about %.0f s of trials left",
            arm.label, split + 1, trial.seconds, 100 * self.spent / self.budget, left,
        )  # fmt: skip
