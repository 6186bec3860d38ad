"""What a run of ``method=auto`` says first: what to expect of bad images that nobody found, and the cost.

Plain sentences from the row and the predictions, the same in the report, the card and in Python.
Shapes: N samples, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unlearn.data.task import Task
from unlearn.evaluation.prediction_change import compare_by_class
from unlearn.evaluation.predictions import Predictions

ORIGINAL = "original"


def describe_proof(
    metrics: Mapping[str, Any],
    task: Task,
    before: Predictions,
    after: Predictions,
    class_names: Sequence[str],
) -> list[str]:
    """Return the sentences; none for a row of another method.

    Args:
        metrics: Columns of the row.
        task: The data.
        before: Predictions of the original model.
        after: Predictions of the healed model.
        class_names: K names.
    """
    if "auto/method" not in metrics:
        return []
    lines = [_describe_expectation(metrics), describe_cost(task, before, after, class_names)]
    if metrics.get("auto/tried"):
        lines.append(_describe_choice(metrics))
    if metrics.get("auto/precision") is not None:
        lines.append(
            f"At least {metrics['auto/precision']:.0%} of the list is bad: healed models that did not see "
            "these images contradict their labels. Good images in the list lower the score of every candidate "
            "and the expected share alike."
        )
    return lines


def _describe_expectation(metrics: Mapping[str, Any]) -> str:
    if metrics.get("method/nothing_to_unlearn"):
        return (
            "Nothing was unlearned: the model does not know the listed images better than one that never saw "
            "them would."
        )
    if metrics["auto/method"] == ORIGINAL:
        return (
            "The original model is returned: no candidate was better than it by more than the standard error "
            "on listed images that the candidates did not see."
        )
    if metrics.get("auto/healed") is None:
        return (
            f"Nothing can be proved about bad images that nobody found: with {metrics.get('auto/listed')} "
            "listed images none could be held out."
        )
    share, low, high = (100 * metrics[f"auto/healed{end}"] for end in ("", "_low", "_high"))
    return (
        f"Of 100 bad images that nobody found, {share:.0f} are expected to be healed (90 % interval {low:.0f} to "
        f"{high:.0f}), judged by {metrics['auto/held_out']} held-out predictions for listed images that the "
        "method did not see."
    )


def _describe_choice(metrics: Mapping[str, Any]) -> str:
    chosen = metrics["auto/method"]
    why = "no candidate was better by more than its standard error"
    if chosen != ORIGINAL:
        value, gain = metrics["auto/score"], metrics["auto/gain"]
        why = (
            f"its score on held-out listed images and on the classes' accuracy is {value:.2f}, that of the "
            f"original {value - gain:.2f}"
        )
    text = (
        f"Chosen: {chosen}, since {why}. Tried (score ± standard error): {metrics['auto/tried']}."
    )
    if metrics.get("auto/left_out"):
        text += f" Not tried, for want of budget: {metrics['auto/left_out']}."
    return f"{text} The trials cost as much as {metrics['auto/cost']:.2f} retrainings."


def describe_cost(
    task: Task, before: Predictions, after: Predictions, class_names: Sequence[str]
) -> str:
    """Return what healing cost in accuracy, overall and in the class that lost most.

    On the held-out set; without one, on retained images with their given labels.
    """
    label, one, two, what = task.test.label.cpu(), before.test, after.test, "Held-out accuracy"
    if not len(label):
        rows = task.retain_indices().cpu()
        label, one, two = task.train.label.cpu()[rows], before.train[rows], after.train[rows]
        what = "Agreement with the labels of images that are not listed"
    a, b = ((said.argmax(1) == label).float().mean().item() for said in (one, two))
    worst = min(
        compare_by_class(one, two, label, class_names), key=lambda row: row["after"] - row["before"]
    )
    return (
        f"{what}: {a:.1%} before, {b:.1%} after ({100 * (b - a):+.1f} points). Worst class: {worst['class']}, "
        f"{worst['before']:.1%} before, {worst['after']:.1%} after "
        f"({100 * (worst['after'] - worst['before']):+.1f} points, {worst['count']} images)."
    )
