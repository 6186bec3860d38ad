"""Fusion of two detectors: what both flag, or what either flags."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn.scoring.base import Recorder, ScoringInputs
from unlearn.scoring.detection.base import Detector

RULES = ("union", "intersection")


class Fused(Detector):
    """Flag samples that either of two detectors flags, or only those of both."""

    def __init__(self, *, detectors: Mapping[str, Detector], rule: str) -> None:
        """Store the detectors.

        Args:
            detectors: Two detectors by name.
            rule: "union" or "intersection".

        Raises:
            ValueError: If there are not two, the rule is unknown, or both record the training.
        """
        super().__init__()
        if rule not in RULES:
            raise ValueError(f"forget_set.rule must be union or intersection, got {rule}")
        if len(detectors) != 2:
            raise ValueError(f"forget_set.detectors must be two, got {list(detectors)}")
        self.detectors, self.rule = dict(detectors), rule
        parts = list(self.detectors.values())
        if sum(part.make_recorder() is not None for part in parts) > 1:
            raise ValueError("forget_set.detectors: both record the original model's training")
        self.needs_query = any(part.needs_query for part in parts)
        self.uses_trusted = any(part.uses_trusted for part in parts)
        asking = next((part for part in parts if part.needs_query), parts[0])
        self.image, self.seed = asking.image, asking.seed

    def make_recorder(self) -> Recorder | None:
        """Return the recorder of the detector that needs one, or None."""
        made = (part.make_recorder() for part in self.detectors.values())
        return next((recorder for recorder in made if recorder is not None), None)

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the sorted indices of the flagged samples; the notes hold the size of each list."""
        votes = torch.zeros(len(subject.data), dtype=torch.long)
        for name, part in self.detectors.items():
            found = part(subject)
            votes[found] += 1
            self.notes |= {f"{name}/{key}": value for key, value in part.notes.items()}
            self.notes[f"{name}/size"] = len(found)
        return (votes >= (1 if self.rule == "union" else 2)).nonzero().flatten()
