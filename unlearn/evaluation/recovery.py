"""Whether a task has anything to unlearn, from a network that never saw a corrupted sample.

The clean-only network is trained like the original, without any corrupted sample. It is ground truth
of the evaluation; no method sees it. Shapes: N training samples, n corrupted samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from unlearn.core.recovery_columns import BASELINE, CEILING, MEMORIZED, RECOVERED
from unlearn.data.task import Task
from unlearn.evaluation.metrics import accuracy, find_hits
from unlearn.models.inference import compute_logits

DIRECTIONS = {MEMORIZED: "max", CEILING: "max", RECOVERED: "max"}


@dataclass(frozen=True)
class CorruptedAccuracy:
    """Accuracies of one model on the corrupted samples, in [0, 1].

    Attributes:
        given: On the labels as received; attack success on test images if the corrupted samples have
            right labels.
        healed: Healed accuracy.
    """

    given: float
    healed: float


def measure_corrupted(model: nn.Module, task: Task, *, masked: bool = False) -> CorruptedAccuracy:
    """Return the accuracies of a model on the corrupted samples.

    Args:
        model: Any classifier.
        task: Its data and ground truth, with at least one corrupted sample.
        masked: Run an expanded network with each training sample's own mask, as it was trained.
    """
    truth = task.truth
    healed_set, true = task.healed_set()
    logits = compute_logits(model, healed_set, masked=masked).cpu()
    healed = accuracy(logits, true.cpu())
    if truth.healed_rows is not None and truth.trigger is not None:
        triggered = compute_logits(model, task.test, change=truth.trigger.stamp_trigger).cpu()
        return CorruptedAccuracy(find_hits(triggered, task).float().mean().item(), healed)
    if truth.healed_rows is not None:
        healed_set = task.train.rows(task.corrupted_indices.to(task.train.label.device))
        logits = compute_logits(model, healed_set, masked=masked).cpu()
    return CorruptedAccuracy(accuracy(logits, healed_set.label.cpu()), healed)


def compare_with_clean_only(
    original: CorruptedAccuracy, clean_only: CorruptedAccuracy
) -> dict[str, float]:
    """Return the facts of a task: ``memorized``, ``ceiling`` and ``healed_original``.

    memorized: accuracy of the original on the given labels of the corrupted samples, minus that of the
    clean-only network. ceiling: healed accuracy of the clean-only network.
    """
    return {
        MEMORIZED: original.given - clean_only.given,
        CEILING: clean_only.healed,
        BASELINE: original.healed,
    }


def compute_recovered(facts: Mapping[str, object], healed: object) -> float | None:
    """Return the part of the possible healing that a model reached; None if it is not defined.

    recovered: healed minus that of the original, over the ceiling minus that of the original: 0 is doing
    nothing, 1 is a network that never saw a corrupted sample.

    Args:
        facts: From ``compare_with_clean_only``.
        healed: Healed accuracy of the model; None if it has none.
    """
    ceiling, before = facts.get(CEILING), facts.get(BASELINE)
    known = [v for v in (ceiling, before, healed) if isinstance(v, int | float)]
    if len(known) < 3 or known[0] <= known[1]:
        return None
    return (known[2] - known[1]) / (known[0] - known[1])
