"""Metrics of the corrective benchmark (arXiv 2505.17730, 2402.14015): pure, fractions in [0, 1].

A metric declares its columns with the better direction, and its needs besides the model.
Shapes: N training samples, T test samples, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from unlearn.data.task import Task
from unlearn.evaluation.predictions import Predictions

NEEDS = ("corruption", "forget", "trigger", "retrained", "embedding", "score")
NEEDS += ("twins", "shadows", "relearned", "original", "test")
"""corruption: something is corrupted and the truth known; forget: part of it was found; trigger:
there is a backdoor; retrained: predictions of the model retrained without the forget set;
embedding: features of the original model; score: a memorization score of every sample; twins:
unlearned and retrained models of other seeds; shadows: models of parts of the training set;
relearned: the forget set was learned again; original: predictions of the original model; test:
there are test images."""

Compute = Callable[..., dict[str, float]]


class Metric(Protocol):
    """A function of predictions, task and the retrained model's predictions (or None)."""

    directions: Mapping[str, str]
    needs: Sequence[str]

    def __call__(
        self, predictions: Predictions, task: Task, retrained: Predictions | None, **options: Any
    ) -> dict[str, float]:
        """Return one value per column; ``options`` come from the config."""
        ...


def metric(directions: Mapping[str, str], needs: Sequence[str] = ()) -> Callable[[Compute], Metric]:
    """Declare a metric's columns ("max" or "min" is better) and needs.

    Raises:
        ValueError: If a direction or need is unknown.
    """
    if set(directions.values()) - {"max", "min"} or set(needs) - set(NEEDS):
        raise ValueError(f"directions must be max or min, needs of {NEEDS}: {directions}, {needs}")

    def declare_metric(compute: Compute) -> Metric:
        compute.directions = dict(directions)  # type: ignore[attr-defined]
        compute.needs = tuple(needs)  # type: ignore[attr-defined]
        return compute  # type: ignore[return-value]

    return declare_metric


def accuracy(outputs: Tensor, label: Tensor, keep: Tensor | None = None) -> float:
    """Return the top-1 accuracy of outputs (N, K) on labels (N,), over ``keep`` if given.

    Raises:
        ValueError: If no sample is left.
    """
    if keep is not None:
        outputs, label = outputs[keep], label[keep]
    if not len(label):
        raise ValueError("no sample to evaluate")
    k = outputs.shape[1]
    return multiclass_accuracy(outputs, label, num_classes=k, average="micro").item()


def select_confused(task: Task) -> Tensor:
    """Return bool (T,): test samples of confused classes."""
    return torch.isin(task.test.label.cpu(), torch.tensor(task.truth.confused_classes).long())


@metric(
    {
        "healed": "max",
        "utility": "max",
        "healed_utility": "max",
        "utility_full": "max",
        "healed_utility_full": "max",
    },
    needs=("corruption",),
)
def compute_headline(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return healed, utility and their product.

    healed: accuracy on all corrupted training samples, found or not, on true labels, with triggers.
    If corrupted samples have right labels (clean-label attacks), on as many other training samples of
    other classes than the target, with the trigger.
    utility: clean test accuracy, for interclass confusion without the confused classes (unless
    there are no others).
    utility_full: clean test accuracy on all of the test set.
    """
    if predictions.healed is not None and task.truth.healed_rows is not None:
        true = task.truth.clean_label.cpu()[task.truth.healed_rows.cpu()]
        healed = accuracy(predictions.healed, true)
    else:
        true = task.truth.clean_label.cpu()
        healed = accuracy(predictions.train, true, task.corrupted_indices.cpu())
    label = task.test.label.cpu()
    full = accuracy(predictions.test, label)
    other = ~select_confused(task)
    utility = accuracy(predictions.test, label, other if other.any() else None)
    return {
        "healed": healed,
        "utility": utility,
        "healed_utility": healed * utility,
        "utility_full": full,
        "healed_utility_full": healed * full,
    }


@metric(
    {
        "forget/accuracy_given": "min",
        "forget/accuracy_true": "max",
        "hidden/accuracy_given": "min",
        "hidden/accuracy_true": "max",
        "clean/accuracy": "max",
        "retain/accuracy_given": "max",
        "train/accuracy_clean": "max",
    },
    needs=("corruption", "forget"),
)
def compute_part_accuracies(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return accuracies on the discovered, hidden and clean parts of the training set.

    "given" uses the labels as received, "true" the true ones; without hidden samples (discovery 1),
    the hidden part has no value.
    """
    given, true = task.train.label.cpu(), task.truth.clean_label.cpu()
    found, hidden = task.forget_indices().cpu(), task.hidden_indices().cpu()
    intact = ~task.truth.corrupted.cpu()
    out = {
        "forget/accuracy_given": accuracy(predictions.train, given, found),
        "forget/accuracy_true": accuracy(predictions.train, true, found),
        "clean/accuracy": accuracy(predictions.train, true, intact),
        "retain/accuracy_given": accuracy(predictions.train, given, task.retain_indices().cpu()),
        "train/accuracy_clean": accuracy(predictions.train_clean, true),
    }
    if len(hidden):
        out["hidden/accuracy_given"] = accuracy(predictions.train, given, hidden)
        out["hidden/accuracy_true"] = accuracy(predictions.train, true, hidden)
    return out


@metric({"test/accuracy": "max", "test/fixed": "max"}, needs=("test",))
def compute_test_accuracy(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return clean test accuracy, and "fixed": accuracy on test data affected by the corruption.

    fixed: with the trigger on (poison), on the confused classes (confusion), else plain.
    """
    label = task.test.label.cpu()
    outputs, keep = predictions.test, None
    if predictions.test_triggered is not None:
        outputs = predictions.test_triggered
    elif task.truth.confused_classes:
        keep = select_confused(task)
    return {
        "test/accuracy": accuracy(predictions.test, label),
        "test/fixed": accuracy(outputs, label, keep),
    }


@metric({"attack_success_rate": "min"}, needs=("trigger",))
def compute_attack_success(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return the fraction of triggered test images of other classes predicted as the target.

    If the trigger turns each class into the next one, of all test images, as the next class.
    """
    if predictions.test_triggered is None:
        raise ValueError("no trigger")
    return {
        "attack_success_rate": find_hits(predictions.test_triggered, task).float().mean().item()
    }


def find_hits(triggered: Tensor, task: Task) -> Tensor:
    """Return which outputs (T, K) on triggered test images are the target.

    Only images of other classes than their target count, bool (n,).
    """
    label = task.test.label.cpu()
    target = task.truth.find_targets(label, task.test.num_classes)
    other = label != target
    return triggered.argmax(1)[other] == target[other]


@metric({"tow": "max"}, needs=("retrained",))
def compute_tow(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return ToW (arXiv 2406.01257): closeness to the retrained model on forget, retain and test set.

    The product of 1 - |accuracy difference|, given labels; the retrained model itself scores 1.
    """
    if retrained is None:
        raise ValueError("no retrained model")
    given, label = task.train.label.cpu(), task.test.label.cpu()
    value = 1.0
    for part in (task.forget_indices().cpu(), task.retain_indices().cpu()):
        ours, theirs = (accuracy(p.train, given, part) for p in (predictions, retrained))
        value *= 1 - abs(ours - theirs)
    gap = abs(accuracy(predictions.test, label) - accuracy(retrained.test, label))
    return {"tow": value * (1 - gap)}
