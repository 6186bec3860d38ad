"""What a race of candidates says, as values for the row and as lines of the log."""

import logging
from collections.abc import Mapping
from typing import Any

from unlearn.core.types import Request
from unlearn.methods.components.floors import Floors
from unlearn.methods.components.race import Race
from unlearn.methods.components.trial_scores import (
    ArmScore,
    estimate_healed_rate,
    estimate_precision,
    expect_classes,
)
from unlearn.methods.components.trials import Arm

log = logging.getLogger(__name__)


def summarize_race(race: Race, scores: Mapping[Arm, ArmScore], unit: float) -> dict[str, Any]:
    """Return what was tried and what it cost.

    Args:
        race: After it was held.
        scores: Of its arms.
        unit: Images of one retraining.
    """
    ranked = sorted(scores, key=lambda arm: -scores[arm].value)
    tried = [f"{a.label} {scores[a].value:.2f} ± {scores[a].error:.2f}" for a in ranked]
    log.info("method=auto: scores on held-out halves: %s", ", ".join(tried))
    return {
        "auto/tried": ", ".join(tried),
        "auto/left_out": ", ".join(race.left_out),
        "auto/cost": race.spent / unit,
        "auto/seconds": race.seconds,
    }


def summarize_best(
    arm: Arm,
    race: Race,
    scores: Mapping[Arm, ArmScore],
    request: Request,
    floors: Floors,
) -> dict[str, Any]:
    """Return the score of the chosen arm, and what to expect of bad samples that nobody found."""
    every = [trial for own in race.trials.values() for trial in own]
    label, own, best = request.forget.label, race.trials[arm], scores[arm]
    notes: dict[str, Any] = {
        "auto/score": best.value,
        "auto/error": best.error,
        "auto/gain": best.gain,
        "auto/gain_error": best.gain_error,
        "auto/kept": best.kept,
    }
    if not request.wrong_labels:
        return notes
    expected = expect_classes(floors, label, every, own)
    rate = estimate_healed_rate(own, expected, floors, label)
    log.info(
        "method=auto: %s is best (score %.2f, original %.2f). Of 100 bad samples that nobody found, %.0f "
        "are expected to be healed (90 %% interval %.0f to %.0f), judged by %d held-out predictions for "
        "listed samples that it did not see",
        arm.label, best.value, best.value - best.gain, 100 * rate.mean, 100 * rate.low,
        100 * rate.high, rate.held_out,
    )  # fmt: skip
    return notes | {
        "auto/held_out": rate.held_out,
        "auto/held_out_healed": rate.healed,
        "auto/precision": estimate_precision(own, floors, label),
        "auto/healed": rate.mean,
        "auto/healed_low": rate.low,
        "auto/healed_high": rate.high,
    }
