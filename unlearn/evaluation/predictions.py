"""What a model says about everything that is measured, computed once.

Shapes: N training samples, T test samples, K classes.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unlearn.models.predict import logits
from unlearn.task import Task


@dataclass(frozen=True)
class Predictions:
    """Outputs of one model, float32, un-augmented.

    Attributes:
        train: (N, K), training images as received, triggers included.
        train_clean: (N, K), training images without triggers.
        test: (T, K), clean test images.
        test_triggered: (T, K), test images with the trigger; None if there is no trigger.
        seconds: What making the model took; None if that is not known.
        embedding: Last features of the training images in the original model, (N, E); None if no
            metric needs them.
    """

    train: Tensor
    train_clean: Tensor
    test: Tensor
    test_triggered: Tensor | None
    seconds: float | None = None
    embedding: Tensor | None = None


def predict(model: nn.Module, task: Task) -> Predictions:
    """Return the predictions of a model on a task."""
    truth = task.truth
    train = logits(model, task.train)
    train_clean = train
    if truth.clean_view is not None:
        where = task.corrupted
        bare = replace(task.train, view=truth.clean_view).rows(where.to(task.train.label.device))
        train_clean = train.clone()
        train_clean[where.to(train.device)] = logits(model, bare)
    triggered = None
    if truth.trigger is not None:
        triggered = logits(model, task.test, change=truth.trigger.stamp).cpu()
    test = logits(model, task.test)
    return Predictions(train.cpu(), train_clean.cpu(), test.cpu(), triggered)
