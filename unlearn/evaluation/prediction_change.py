"""Changes relative to the original model, measured without ground truth.

Shapes: N training samples, T test samples, n compared ones, K classes.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from unlearn.data.task import Task
from unlearn.evaluation.intervals import paired_interval, wilson_interval
from unlearn.evaluation.metrics import accuracy, metric
from unlearn.evaluation.predictions import Predictions


def kl_to_original(before: Tensor, after: Tensor) -> float:
    """Return the mean over samples of KL(original || healed) in nats, of logits (n, K).

    Raises:
        ValueError: If there is no sample.
    """
    if not len(before):
        raise ValueError("no sample to compare")
    log_p, log_q = F.log_softmax(before, 1), F.log_softmax(after, 1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True).item()


@metric(
    {
        "forget/agreement_original": "min",
        "forget/agreement": "min",
        "forget/changed": "max",
        "forget/accuracy_known_original": "max",
        "forget/accuracy_known": "max",
        "retain/agreement_original": "max",
        "retain/agreement": "max",
        "retain/changed": "min",
        "retain/kl_original": "min",
        "test/accuracy_original": "max",
        "test/accuracy_lost": "min",
        "test/accuracy_lost_worst_class": "min",
        "test/changed": "min",
        "test/kl_original": "min",
    },
    needs=("forget", "original"),
)
def compute_change(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return how the model differs from the original on forget, retain and test set.

    agreement: fraction of samples predicted as their given label (in the forget set: the wrong one);
    changed: fraction whose prediction differs; known: accuracy on true labels that the user gave.
    None of them shows whether hidden bad samples are healed.
    """
    before = predictions.original
    if before is None:
        raise ValueError("no original model")
    given, label = task.train.label.cpu(), task.test.label.cpu()
    out: dict[str, float] = {}
    for name, rows in (
        ("forget", task.forget_indices().cpu()),
        ("retain", task.retain_indices().cpu()),
    ):
        a, b = before.train[rows], predictions.train[rows]
        out[f"{name}/agreement_original"] = accuracy(a, given[rows])
        out[f"{name}/agreement"] = accuracy(b, given[rows])
        out[f"{name}/changed"] = _change_rate(a, b)
        if name == "retain":
            out["retain/kl_original"] = kl_to_original(a, b)
    known = known_rows(task)
    if len(known):
        true = task.truth.known_label[known]  # type: ignore[index]
        out["forget/accuracy_known_original"] = accuracy(before.train[known], true)
        out["forget/accuracy_known"] = accuracy(predictions.train[known], true)
    if not len(label):
        return out
    out["test/accuracy_original"] = accuracy(before.test, label)
    out["test/accuracy_lost"] = out["test/accuracy_original"] - accuracy(predictions.test, label)
    rows = compare_by_class(
        before.test, predictions.test, label, [str(k) for k in range(task.test.num_classes)]
    )
    out["test/accuracy_lost_worst_class"] = max(r["before"] - r["after"] for r in rows)
    out["test/changed"] = _change_rate(before.test, predictions.test)
    out["test/kl_original"] = kl_to_original(before.test, predictions.test)
    return out


def _change_rate(before: Tensor, after: Tensor) -> float:
    return (before.argmax(1) != after.argmax(1)).float().mean().item()


def known_rows(task: Task) -> Tensor:
    """Return the forget samples whose true label the user gave, (n,)."""
    rows = task.forget_indices().cpu()
    if task.truth.known_label is None:
        return rows[:0]
    return rows[task.truth.known_label[rows] >= 0]


def compare_by_class(
    before: Tensor, after: Tensor, label: Tensor, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the accuracy on each class that has samples, before and after, with 95 % intervals.

    Args:
        before: Logits (n, K) of the original model.
        after: Logits (n, K) of the healed one.
        label: Class of each sample, (n,).
        names: K names.
    """
    rows = []
    for k in label.unique().tolist():
        own = label == k
        rows.append(
            compare_shares(before[own].argmax(1) == k, after[own].argmax(1) == k)
            | {"class": names[k]}
        )
    return rows


def compare_shares(before: Tensor, after: Tensor) -> dict[str, Any]:
    """Return a share before and after, and its change, with intervals; n above 0.

    Args:
        before: Bool (n,), samples counted before.
        after: Bool (n,), samples counted after.
    """
    n = len(before)
    return {
        "count": n,
        "before": before.float().mean().item(),
        "after": after.float().mean().item(),
        "interval_before": wilson_interval(int(before.sum()), n),
        "interval_after": wilson_interval(int(after.sum()), n),
        "interval_change": paired_interval(before, after),
    }
