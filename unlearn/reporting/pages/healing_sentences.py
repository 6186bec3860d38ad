"""Sentences of the report of a healed model, as HTML."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearn.reporting.pages.healing_page import HealingReport


def describe_detector(healing: "HealingReport") -> list[str]:
    """Return a sentence about the detector that flagged the list; none if the user gave it."""
    if healing.found_by is None:
        return []
    count, total = len(healing.task.forget_indices()), len(healing.task.train)
    return [
        f"The detector <b>{escape(healing.found_by)}</b> flagged <b>{count}</b> of {total} training "
        f"images ({count / total:.1%}): the list below, also in <code>found.csv</code> "
        "in the run's folder. They were not checked by a person; some may be correct."
    ]


def summarize_changes(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one sentence per change."""
    forget = found["Forget set: still labelled as listed"]
    lines = [
        f"Of the {forget['count']} listed images, the original labelled "
        f"<b>{forget['before']:.1%}</b> as listed, the healed model <b>{forget['after']:.1%}</b>."
    ]
    known = found.get("Forget set: correct, where you gave the true label")
    if known:
        lines.append(
            f"Of the {known['count']} whose true label you gave, <b>{known['before']:.1%}</b> were "
            f"classified correctly before, <b>{known['after']:.1%}</b> are now."
        )
    test = found.get("Held-out set: correct")
    if test:
        low, high = test["interval_change"]
        verdict = "not statistically significant" if low <= 0 <= high else (
            "better than before" if low > 0 else "worse than before"
        )  # fmt: skip
        lines.append(
            f"Held-out accuracy went from <b>{test['before']:.1%}</b> to <b>{test['after']:.1%}</b> "
            f"({format_points(test)}): {verdict}."
        )
        moved = 1 - found["Held-out set: prediction unchanged"]["after"]
        lines.append(f"The prediction changed for <b>{moved:.1%}</b> of the held-out images.")
    return lines


def describe_certainty(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one sentence per source of uncertainty."""
    lines = [
        "95 % intervals: of shares by Wilson, of changes by Agresti and Min (paired images). "
        "They cover the sampling of images, not the seed of the unlearning."
    ]
    test = found.get("Held-out set: correct")
    if test:
        low, high = test["interval_change"]
        lines.append(
            f"With {test['count']} held-out images, a change of accuracy below about "
            f"{max((high - low) / 2, 1 / test['count']) * 100:.1f} points is not significant."
        )
        lines.append(
            "Held-out labels are taken as correct; bad images among them affect the numbers."
        )
    else:
        lines.append("Without a held-out set, the effect on other images is unknown.")
    lines.append(
        "Whether bad images that you did not list are healed is unknown without their true "
        "labels; method=auto says what share to expect. The last group of pictures shows candidates."
    )
    lines.append(
        "A lower share on the forget set shows that the listed labels are no longer predicted, not "
        "that the new ones are correct. Small counts per class give wide intervals."
    )
    return lines


def format_points(row: Mapping[str, Any]) -> str:
    """Return the change in points with its interval."""
    low, high = (100 * v for v in row["interval_change"])
    return f"{100 * (row['after'] - row['before']):+.1f} points, {low:+.1f} to {high:+.1f}"
