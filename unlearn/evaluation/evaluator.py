"""Computes the columns of metrics from predictions; failures are recorded."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

from unlearn.data.task import Task
from unlearn.evaluation.metrics import Metric
from unlearn.evaluation.predictions import REFERENCE_NEEDS, Predictions

log = logging.getLogger(__name__)

Row = dict[str, float | int | bool | str | None]


def get_metric(entry: Any) -> Metric:
    """Return the declared metric of a config's partial.

    Raises:
        ValueError: If the function declares no directions and needs.
    """
    function: Any = entry.func if isinstance(entry, functools.partial) else entry
    if not hasattr(function, "directions") or not hasattr(function, "needs"):
        raise ValueError(f"evaluation: {function!r} is no metric; decorate it with @metric")
    return function


def evaluate_metrics(
    metrics: Mapping[str, Any],
    predictions: Predictions,
    task: Task,
    retrained: Predictions | None = None,
) -> Row:
    """Return all declared columns.

    Args:
        metrics: Metric functions by name, as the config gives them.
        predictions: Of the model under test.
        task: Data and truth.
        retrained: Of the retrained reference, if some metric needs it.

    Returns:
        Values in [0, 1]. A column that does not apply is None; one whose metric failed is None
        with the reason in ``failed/<name>``.
    """
    have = {"corruption": bool(task.truth.corrupted.any()), "forget": bool(task.forget)}
    have |= {"test": len(task.test) > 0}
    have |= {"trigger": task.truth.trigger is not None, "retrained": retrained is not None}
    have |= {"embedding": predictions.embedding is not None, "score": "score" in task.records}
    further = (*REFERENCE_NEEDS, "original")
    have |= {need: getattr(predictions, need) is not None for need in further}
    row: Row = {}
    for name, entry in metrics.items():
        function = get_metric(entry)
        row |= dict.fromkeys(function.directions)
        if not all(have[need] for need in function.needs):
            continue
        try:
            row |= entry(predictions, task, retrained)
        except Exception as error:
            log.warning("metric %s failed: %s", name, error)
            row[f"failed/{name}"] = f"{type(error).__name__}: {error}"
    return row


def find_collapse(row: Row, num_classes: int) -> str | None:
    """Return the reason if a model is collapsed (test accuracy at chance level), else None.

    A model that is no worse than a known original has not collapsed.
    """
    value, before = row.get("test/accuracy"), row.get("test/accuracy_original")
    if isinstance(value, float) and isinstance(before, float) and value >= before:
        return None
    chance = 1 / num_classes
    if isinstance(value, float) and value <= chance + 0.1 * (1 - chance):
        return f"test accuracy {value:.3f} is at chance level for {num_classes} classes"
    return None
