"""Scores of trials, and what they say of bad samples that nobody found.

A held-out sample counts as healed if the network predicts the class that is expected without the
listed label: that which the original and the other trials that did not see the sample find most
probable, on shifted copies. A candidate's own opinion is left out.

Shapes: F forget samples, m held-out ones, K classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.methods.components.agreement import drop_listed, rate_predictions
from unlearn.methods.components.floors import Floors
from unlearn.methods.components.trials import Trial

DISPERSION = 0.1
"""Correlation of samples within one unlearning: the share of the variance of their outcomes that lies
between unlearnings, not between samples. Mean over methods and corruptions of recorded rows on the
digits, seeds 0 to 2, see docs/auto.md."""
SHARPNESS = 6
"""Power of a voter's agreement in its weight."""
ROUNDS = 5
"""Rounds in which weights and expectation are computed in turns."""
PRIOR = 0.5
"""Jeffreys' prior counts of healed and of other samples."""
LEVEL = 0.9
"""Probability that the stated interval holds the rate."""
IMAGES = 100
"""Number of bad images for which the interval is stated."""


@dataclass(frozen=True)
class ArmScore:
    """The score of an arm over its trials.

    Attributes:
        value: kept * healed, in [0, 1].
        kept: Mean over trials of the relative accuracy on retained samples.
        healed: Agreement of held-out predictions with the expected ones, in [0, 1].
        error: Standard error of the value, from the held-out samples.
        gain: Value minus that of the original on the same samples.
        gain_error: Standard error of the gain, from pairs.
        held_out: Number of held-out predictions.
        trials: Number of trials.
    """

    value: float
    kept: float
    healed: float
    error: float
    gain: float
    gain_error: float
    held_out: int
    trials: int

    @property
    def better(self) -> bool:
        """Whether the gain exceeds its standard error."""
        return self.gain > self.gain_error


@dataclass(frozen=True)
class HealedRate:
    """The expected share of healed samples among bad ones that nobody found.

    Attributes:
        mean: Expectation, in [0, 1].
        low: Lower end of the 90 % interval.
        high: Upper end.
        healed: Held-out samples that count as healed; not whole, since labels are not known.
        held_out: Held-out samples.
    """

    mean: float
    low: float
    high: float
    healed: float
    held_out: int


def expect_classes(
    floors: Floors, label: Tensor, trials: Sequence[Trial], left_out: Sequence[Trial] = ()
) -> Tensor:
    """Return the distribution over the other classes that is expected without the listed labels, (F, K).

    The original and each trial that did not see a sample vote, by what they find probable besides its
    listed label. Votes are weighted by how well the voter agrees with all, to the power ``SHARPNESS``,
    so that networks which a method has damaged count little.

    Args:
        floors: Of the whole forget set; the original's vote.
        label: Listed labels, int64 (F,).
        trials: Trials of any arms; each votes on its held-out samples.
        left_out: Trials that do not vote.
    """
    label = label.cpu()
    skipped = {id(one) for one in left_out}
    votes = [(torch.arange(len(label)), floors.other)]
    votes += [
        (trial.held, drop_listed(trial.shifted, label[trial.held]))
        for trial in trials
        if id(trial) not in skipped and not trial.collapsed
    ]
    weights = [1.0] * len(votes)
    total = votes[0][1]
    for _ in range(ROUNDS):
        total = torch.zeros_like(total)
        for weight, (held, vote) in zip(weights, votes, strict=True):
            total[held] += weight * vote
        total = total / total.sum(1, keepdim=True).clamp(min=1e-12)
        weights = [float((v * total[held]).sum(1).mean()) ** SHARPNESS for held, v in votes]
    return total


def score_arm(
    trials: Sequence[Trial],
    before: Tensor,
    expected: Tensor,
    listed: ImageSet,
    floors: Floors,
    *,
    wrong_labels: bool = True,
) -> ArmScore:
    """Return the score of an arm.

    Args:
        trials: Its trials, at least one.
        before: Predictions of the original for the forget set, int64 (F,).
        expected: As from ``expect_classes``, (F, K).
        listed: The forget set.
        floors: Its floors.
        wrong_labels: Whether it is listed for wrong labels; else only given labels above the floor
            lower the score.
    """
    held = torch.cat([trial.held for trial in trials])
    predicted = torch.cat([trial.predicted for trial in trials])
    kept = torch.cat([torch.full((len(t.held),), t.kept) for t in trials])
    now, then = (
        _rate_predictions(said, held, expected, listed.label.cpu(), floors, wrong_labels)
        for said in (predicted, before[held])
    )
    count = len(held)
    gains = kept * now - then
    share = float(kept.mean())
    return ArmScore(
        value=float((kept * now).mean()),
        kept=share,
        healed=float(now.mean()),
        error=_standard_error(kept * now),
        gain=float(gains.mean()),
        gain_error=_standard_error(gains),
        held_out=count,
        trials=len(trials),
    )


def _rate_predictions(
    predicted: Tensor,
    held: Tensor,
    expected: Tensor,
    label: Tensor,
    floors: Floors,
    wrong_labels: bool,
) -> Tensor:
    """Return how well each prediction agrees with the expected one, (n,), at most about 1."""
    if not wrong_labels:
        given = (predicted == label[held]).float()
        return (1 - (given - floors.rate[held])).clamp(max=1)
    return rate_predictions(predicted, label[held], floors.rate[held], expected[held])


def _standard_error(values: Tensor) -> float:
    """Return the standard error of a mean; that of one more sample in doubt if all agree."""
    count = len(values)
    if count < 2:
        return 1.0
    least = 1 / (count + 1)  # without spread: as if one more sample were otherwise
    return max(float(values.std()) / math.sqrt(count), least / math.sqrt(count))


def estimate_healed_rate(
    trials: Sequence[Trial], expected: Tensor, floors: Floors, label: Tensor
) -> HealedRate:
    """Return what to expect of bad samples that are not listed.

    Args:
        trials: Trials of the arm, at least one.
        expected: As from ``expect_classes``, without the arm's votes, (F, K).
        floors: Of the whole forget set.
        label: Listed labels, int64 (F,).
    """
    hits = [_count_healed(trial, expected, floors, label.cpu()) for trial in trials]
    return make_interval(hits, [len(trial.held) for trial in trials])


def _count_healed(trial: Trial, expected: Tensor, floors: Floors, label: Tensor) -> float:
    """Return how many held-out samples of a trial count as healed, by agreement and chance."""
    held, said = trial.held, trial.predicted
    agreement = rate_predictions(said, label[held], floors.rate[held], expected[held])
    return min(float(len(held)), float(agreement.sum()))


def make_interval(
    hits: Sequence[float], sizes: Sequence[int], dispersion: float = DISPERSION
) -> HealedRate:
    """Return the predictive mean and 90 % interval of the rate in another unlearning.

    Samples of one unlearning are correlated by ``dispersion``, and another one, with the whole list,
    differs as much: a beta-binomial model. Its effective numbers of samples update Jeffreys' prior,
    and the variance between unlearnings is added to that of the mean. The interval is that of the
    number among ``IMAGES`` bad ones.

    Args:
        hits: Healed held-out samples by trial.
        sizes: Held-out samples by trial, above 0.
        dispersion: Correlation of samples within an unlearning, in [0, 1).
    """
    from scipy.stats import betabinom  # here, since it takes 36 MB

    counts = [n / (1 + (n - 1) * dispersion) for n in sizes]  # effective numbers of samples
    healed = sum(c * h / n for c, h, n in zip(counts, hits, sizes, strict=True))
    a, b = PRIOR + healed, PRIOR + sum(counts) - healed
    mean = a / (a + b)
    variance = mean * (1 - mean) * ((1 - dispersion) / (a + b + 1) + dispersion)
    size = mean * (1 - mean) / variance - 1  # of the beta distribution with this mean and variance
    tail = (1 - LEVEL) / 2
    number = betabinom(IMAGES, mean * size, (1 - mean) * size)
    low, high = (float(number.ppf(q)) / IMAGES for q in (tail, 1 - tail))
    return HealedRate(mean, low, high, sum(hits), sum(sizes))


def estimate_precision(trials: Sequence[Trial], floors: Floors, label: Tensor) -> float:
    """Return the share of the list whose labels are wrong, at least, in [0, 1].

    The share of held-out samples whose listed label the healed networks contradict; a wrong label is
    kept by chance as often as its floor says. What was not healed counts as right.

    Args:
        trials: Trials of the best arm.
        floors: Of the whole forget set.
        label: Listed labels, int64 (F,).
    """
    held = torch.cat([trial.held for trial in trials])
    said = torch.cat([trial.predicted for trial in trials])
    lost = float((said != label.cpu()[held]).float().mean())
    return min(1.0, lost / max(1e-12, 1 - float(floors.rate[held].mean())))
