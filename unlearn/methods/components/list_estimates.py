"""What a list of bad samples says of itself before anything is tried, and the candidates that suit it."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from unlearn.core.types import Request
from unlearn.methods.components.floors import Floors
from unlearn.methods.components.trial_scores import ArmScore
from unlearn.methods.components.trials import Arm
from unlearn.scoring.regularity import LEVELS, label_concentration

MARGIN = 0.25
"""Methods that are expected to lie this far below the best are not tried."""
EVIDENCE_SAMPLES = 8
"""Held-out samples as which the evidence for a candidate counts."""


def describe_list(request: Request, floors: Floors, accuracy: float) -> dict[str, Any]:
    """Return the estimates of a forget set.

    regularity: level of the concentration of its labels. (The other half of the measure of
    ``scoring.regularity`` needs a retrained model.) memorized: share of the samples with their listed
    label beyond the floor.

    Args:
        request: Forget and retain set.
        floors: Of the forget set.
        accuracy: The original's on the listed labels.
    """
    listed = request.forget
    facts: dict[str, Any] = {"listed": len(listed), "regularity": "unknown"}
    if len(listed) > 1:
        every = torch.cat([listed.label.cpu(), request.retain.label.cpu()])
        value = label_concentration(listed.label, every, listed.num_classes)
        facts["regularity"] = next(level for level, least in LEVELS if value >= least)
        facts["concentration"] = value
    facts["memorized"] = max(0.0, (accuracy - floors.mean) / max(1e-12, 1 - floors.mean))
    return facts


def find_evidence(name: str, evidence: Mapping[str, float]) -> float | None:
    """Return the evidence for a candidate; ``npo_gentle`` has that of ``npo``."""
    while name and name not in evidence:
        name = name.rpartition("_")[0]
    return evidence.get(name)


def order_candidates(names: Iterable[str], evidence: Mapping[str, float]) -> list[str]:
    """Return the candidates that suit, the most promising first.

    Those expected to lie ``MARGIN`` below the best are left out; those without evidence come last.

    Args:
        names: Candidates.
        evidence: Expected result by method, in [0, 1]; may be empty.
    """
    known = {name: find_evidence(name, evidence) for name in names}
    values = {name: value for name, value in known.items() if value is not None}
    top = max(values.values(), default=0.0)
    suit = [name for name in known if name in values and values[name] >= top - MARGIN]
    suit.sort(key=lambda name: -values[name])
    return [*suit, *(name for name in known if name not in values)]


def rank_arms(scores: Mapping[Arm, ArmScore], evidence: Mapping[str, float]) -> list[Arm]:
    """Return arms by score and evidence, the best first.

    The evidence counts as ``EVIDENCE_SAMPLES`` held-out samples, after a shift to the scale of the
    scores; where an arm has none, its score alone counts.

    Args:
        scores: Of the arms.
        evidence: Expected result by method; may be empty.
    """
    known = {arm: find_evidence(arm.name, evidence) for arm in scores}
    pairs = [(scores[arm].value, value) for arm, value in known.items() if value is not None]
    shift = sum(a - b for a, b in pairs) / len(pairs) if pairs else 0.0

    def expect(arm: Arm) -> float:
        value, expected, count = scores[arm].value, known[arm], scores[arm].held_out
        if expected is None:
            return value
        return (count * value + EVIDENCE_SAMPLES * (expected + shift)) / (count + EVIDENCE_SAMPLES)

    return sorted(scores, key=lambda arm: -expect(arm))
