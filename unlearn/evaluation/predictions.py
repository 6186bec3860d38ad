"""Predictions of a model on all evaluated data, computed once.

Shapes: N training samples, T test samples, K classes.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unlearn.data.task import Task
from unlearn.models.inference import compute_logits

REFERENCE_NEEDS = ("twins", "shadows", "relearned")
"""Fields of ``Predictions`` that hold reference models, for the metrics that need them."""


@dataclass(frozen=True)
class SeedPairs:
    """Margins of unlearned and retrained models of several seeds, the run's own first.

    Attributes:
        unlearned: (M, N + T), training samples, then test samples.
        retrained: (M, N + T), of models retrained without the forget set.
        train_size: N.
        test_size: T.
    """

    unlearned: Tensor
    retrained: Tensor
    train_size: int
    test_size: int


@dataclass(frozen=True)
class ShadowModels:
    """Models of random parts of the training set.

    Attributes:
        member_mask: Training samples of each model, bool (M, N).
        margin: Its margins, (M, N).
    """

    member_mask: Tensor
    margin: Tensor


@dataclass(frozen=True)
class Predictions:
    """Outputs of one model, float32, un-augmented.

    Attributes:
        train: (N, K), training images as received, triggers included.
        train_clean: (N, K), training images without triggers.
        test: (T, K), clean test images.
        test_triggered: (T, K), test images with the trigger; None if there is no trigger.
        seconds: Time to make the model; None if unknown.
        embedding: Last features of the training images in the original model, (N, E); None if no
            metric needs them, as for all below.
        twins: Unlearned and retrained models of other seeds.
        shadows: Models of random parts of the training set.
        relearned: Relearn steps of the model and of the retrained model.
        original: Predictions of the original model.
        healed: (n, K), the images of ``Task.healed_set``; None if these are the corrupted samples.
    """

    train: Tensor
    train_clean: Tensor
    test: Tensor
    test_triggered: Tensor | None
    seconds: float | None = None
    embedding: Tensor | None = None
    twins: SeedPairs | None = None
    shadows: ShadowModels | None = None
    relearned: tuple[int, int] | None = None
    original: "Predictions | None" = None
    healed: Tensor | None = None


def predict_task(model: nn.Module, task: Task) -> Predictions:
    """Return the predictions of a model on a task."""
    truth = task.truth
    train = compute_logits(model, task.train)
    train_clean = train
    if truth.clean_view is not None:
        where = task.corrupted_indices
        bare = replace(task.train, view=truth.clean_view).rows(where.to(task.train.label.device))
        train_clean = train.clone()
        train_clean[where.to(train.device)] = compute_logits(model, bare)
    triggered = None
    if truth.trigger is not None:
        triggered = compute_logits(model, task.test, change=truth.trigger.stamp_trigger).cpu()
    test = compute_logits(model, task.test)
    healed = None
    if truth.healed_rows is not None:
        healed = compute_logits(model, task.healed_set()[0]).cpu()
    return Predictions(train.cpu(), train_clean.cpu(), test.cpu(), triggered, healed=healed)
