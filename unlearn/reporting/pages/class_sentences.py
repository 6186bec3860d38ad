"""Sentences about the classes that lost accuracy, as HTML."""

from collections.abc import Sequence
from html import escape

from unlearn.evaluation.class_losses import ClassLoss


def format_losses(losses: Sequence[ClassLoss]) -> str:
    """Return a paragraph per class that lost accuracy; empty if none did."""
    return "".join(f'<p class="bad">{_to_sentence(one)}</p>' for one in losses if one.is_lost)


def summarize_worst(losses: Sequence[ClassLoss]) -> list[str]:
    """Return a sentence about the class that lost most; none without samples."""
    if not losses:
        return []
    if losses[0].loss <= 0:
        return ["No class lost accuracy."]
    return [f"{_to_sentence(losses[0])} No class lost more; the interval holds for all at once."]


def _to_sentence(one: ClassLoss) -> str:
    text = escape(one.describe())
    return f"{text[0].upper()}{text[1:]}."
