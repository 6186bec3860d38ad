"""The accuracy that single classes lost: the worst class, and classes of which little is left.

The overall accuracy hides them. Intervals hold for all classes at once (Bonferroni), since the worst
of K classes is looked for. Shapes: n compared samples, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from unlearn.data.task import Task
from unlearn.evaluation.intervals import paired_interval
from unlearn.evaluation.predictions import Predictions

MIN_LOSS = 0.1
"""Smallest loss of a class, in accuracy, that is reported as such."""

LEFT = 0.25
"""Fraction of its accuracy at or below which a class counts as gone."""


@dataclass(frozen=True)
class ClassLoss:
    """The change of one class.

    Attributes:
        name: Of the class.
        images: What was compared: "held-out images" or "retain images".
        count: n.
        before: Accuracy of the original, in [0, 1].
        after: Accuracy of the healed model, in [0, 1].
        low: Lower end of the 95 % interval of the loss, in [-1, 1].
        high: Its upper end.
    """

    name: str
    images: str
    count: int
    before: float
    after: float
    low: float
    high: float

    @property
    def loss(self) -> float:
        """Loss of accuracy; negative if the class gained."""
        return self.before - self.after

    @property
    def is_lost(self) -> bool:
        """Whether the class lost accuracy that chance does not explain."""
        return self.loss >= MIN_LOSS and self.low > 0

    def describe(self) -> str:
        """Return one sentence with the accuracies and the interval of the loss in points."""
        gone = self.is_lost and self.after <= LEFT * self.before
        what = "is almost gone" if gone else "lost accuracy" if self.is_lost else "changed"
        text = f"{self.before:.0%} to {self.after:.0%} of {self.count} {self.images}"
        points = (
            f"{-100 * self.loss:+.0f} points, {-100 * self.high:+.0f} to {-100 * self.low:+.0f}"
        )
        return f"class {self.name} {what}: {text} ({points})"


def compare_classes(
    before: Predictions, after: Predictions, task: Task, names: Sequence[str]
) -> list[ClassLoss]:
    """Return the change of every class that has samples, the largest loss first.

    On the held-out set; without one, on the retain set, whose labels are those given.

    Args:
        before: Predictions of the original.
        after: Predictions of the healed model.
        task: The data.
        names: K names.
    """
    label, images = task.test.label.cpu(), "held-out images"
    a, b = before.test, after.test
    if not len(label):
        rows, images = task.retain_indices().cpu(), "retain images"
        label, a, b = task.train.label.cpu()[rows], before.train[rows], after.train[rows]
    return sorted(measure_losses(a, b, label, names, images), key=lambda one: -one.loss)


def measure_losses(
    before: Tensor, after: Tensor, label: Tensor, names: Sequence[str], images: str
) -> list[ClassLoss]:
    """Return the change of each class of ``label``, in the order of classes.

    Args:
        before: Logits of the original (n, K).
        after: Logits of the healed model (n, K).
        label: Class of each sample, (n,).
        names: K names.
        images: What the samples are.
    """
    classes = label.unique().tolist()
    from scipy import stats  # here, since it takes 36 MB

    z = float(stats.norm.ppf(1 - 0.025 / max(1, len(classes))))
    out = []
    for k in classes:
        own = label == k
        a, b = (logits[own].argmax(1) == k for logits in (before, after))
        low, high = paired_interval(a, b, z)
        share = [x.double().mean().item() for x in (a, b)]
        out.append(ClassLoss(names[int(k)], images, int(own.sum()), *share, low=-high, high=-low))
    return out


def summarize_worst_class(losses: Sequence[ClassLoss]) -> dict[str, float | int | str]:
    """Return the columns of a row about the class with the largest loss, and all lost classes."""
    if not losses:
        return {}
    worst = losses[0]
    row: dict[str, float | int | str] = {
        f"worst_class/{key}": getattr(worst, key)
        for key in ("name", "images", "count", "before", "after", "loss", "low", "high")
    }
    return row | {"worst_class/lost": ", ".join(one.name for one in losses if one.is_lost)}
