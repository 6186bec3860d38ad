"""A score of an unlearned network without ground truth, used to choose checkpoints and options.

score = kept * healed. kept: geometric mean over the classes of the accuracy on retained samples
relative to the original's, so that the loss of one class cannot hide in the mean. healed: agreement of
the predictions for listed samples with what a network that never saw them is expected to predict
(``rate_predictions``); a prediction that is merely another class counts little. docs/floors.md
compares it to the truth.

Shapes: N samples, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearn.core.types import ImageSet, Request
from unlearn.methods.components.agreement import rate_predictions
from unlearn.methods.components.floors import Floors
from unlearn.models.inference import compute_logits

LEAST = 1e-3
"""Lower bound of a class's relative accuracy, so that one class does not decide alone."""


@dataclass(frozen=True)
class ScoreParts:
    """The factors of a score, each in [0, 1]."""

    kept: float
    healed: float

    @property
    def value(self) -> float:
        """The score."""
        return self.kept * self.healed


class HealingScore:
    """Scores networks against the original model on a retain set and on listed samples."""

    def __init__(
        self,
        original: nn.Module,
        *,
        listed: ImageSet,
        retain: ImageSet,
        floors: Floors,
        wrong_labels: bool = True,
    ) -> None:
        """Measure the original.

        Args:
            original: The original model.
            listed: Listed samples with their given labels.
            retain: Samples whose accuracy is to be kept.
            floors: Of the listed samples, in their order.
            wrong_labels: Whether they are listed because their labels are wrong; else only an accuracy
                above the floor lowers the score.
        """
        self.listed, self.retain = listed, retain
        self.floors, self.wrong_labels = floors, wrong_labels
        self.before = measure_class_accuracies(original, retain)

    def measure(self, model: nn.Module) -> ScoreParts:
        """Return the score of a network."""
        return ScoreParts(kept=self.measure_kept(model), healed=self.measure_healed(model))

    def measure_kept(self, model: nn.Module) -> float:
        """Return the mean relative accuracy of the classes on retained samples."""
        counted = self.before > 0
        if not counted.any():
            return 1.0
        now = measure_class_accuracies(model, self.retain)[counted] / self.before[counted]
        return float(now.clamp(LEAST, 1).log().mean().exp())

    def measure_healed(self, model: nn.Module) -> float:
        """Return how well the predictions for the listed samples agree with the expected ones."""
        predicted = compute_logits(model, self.listed).argmax(1).cpu()
        if not self.wrong_labels:
            given = (predicted == self.listed.label.cpu()).float().mean()
            return float(1 - (given - self.floors.mean).clamp(min=0))
        floors, label = self.floors, self.listed.label.cpu()
        return float(rate_predictions(predicted, label, floors.rate, floors.other).mean())


def build_healing_score(original: nn.Module, request: Request, floors: Floors) -> HealingScore:
    """Return the score on a request's forget set and retain set."""
    return HealingScore(
        original,
        listed=request.forget,
        retain=request.retain,
        floors=floors,
        wrong_labels=request.wrong_labels,
    )


def measure_class_accuracies(model: nn.Module, data: ImageSet) -> Tensor:
    """Return the accuracy on the given labels of each class, (K,); 0 for absent classes."""
    label, classes = data.label.cpu(), data.num_classes
    right = (compute_logits(model, data).argmax(1).cpu() == label).float()
    sums = torch.zeros(classes).index_add_(0, label, right)
    return sums / torch.bincount(label, minlength=classes).clamp(min=1)
