"""Metrics of backdoors: what becomes of test images with the trigger (arXiv 2206.12654, 2304.11823).

Shapes: T test samples, K classes.
"""

import torch

from unlearn.data.task import Task
from unlearn.evaluation.metrics import accuracy, find_hits, metric
from unlearn.evaluation.predictions import Predictions


@metric(
    {
        "trigger/recovery": "max",
        "trigger/other": "min",
        "trigger/shifted": "min",
        "der": "max",
        "target_class/accuracy": "max",
        "healed_corrupted": "max",
    },
    needs=("trigger", "original", "test"),
)
def compute_backdoor(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return where triggered test images go, the defence effectiveness and the target class.

    Over test images of other classes than the target, with the trigger on:
    trigger/recovery: fraction predicted as the true class (RA).
    trigger/other: fraction predicted as neither the true class nor the target.
    trigger/shifted: the largest fraction predicted as one such class; ``trigger/shifted_to`` is its
    number.
    der: ``(max(0, ASR loss) - max(0, accuracy loss) + 1) / 2`` against the original model.
    target_class/accuracy: clean test accuracy of the target class, if there is one.
    healed_corrupted: accuracy of the corrupted training samples on true labels.
    """
    before = predictions.original
    if predictions.test_triggered is None or before is None or before.test_triggered is None:
        raise ValueError("no trigger")
    label, k = task.test.label.cpu(), task.test.num_classes
    target = task.truth.find_targets(label, k)
    other = label != target
    said = predictions.test_triggered.argmax(1)[other]
    right, hit = said == label[other], said == target[other]
    astray = torch.bincount(said[~right & ~hit], minlength=k)
    stopped = (
        find_hits(before.test_triggered, task).float().mean().item() - hit.float().mean().item()
    )
    lost = accuracy(before.test, label) - accuracy(predictions.test, label)
    out = {
        "trigger/recovery": right.float().mean().item(),
        "trigger/other": (~right & ~hit).float().mean().item(),
        "trigger/shifted": astray.max().item() / len(said),
        "der": (max(0.0, stopped) - max(0.0, lost) + 1) / 2,
        "healed_corrupted": accuracy(
            predictions.train, task.truth.clean_label.cpu(), task.corrupted_indices.cpu()
        ),
    }
    if astray.any():
        out["trigger/shifted_to"] = int(astray.argmax())
    own = label == task.truth.target_class if task.truth.target_class is not None else ~other
    if own.any():
        out["target_class/accuracy"] = accuracy(predictions.test, label, own)
    return out
