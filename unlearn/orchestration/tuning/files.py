"""Output of a study: all trials as CSV, the best setting as a file of ``conf/method_defaults``."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from unlearn.core.spreadsheets import escape_formula
from unlearn.orchestration.tuning.study import FinishedTrial

ABSENT = object()
CITATION_PATTERN = re.compile(r" \([^()]*(?:arXiv|reference|ours|benchmark|study|code)[^()]*\)")


def find_changes(
    chosen: Mapping[str, Any], grounds: Sequence[Mapping[str, Any]], named: Sequence[str]
) -> dict[str, Any]:
    """Return the changes that turn each of the grounds into ``chosen`` when merged over it.

    Args:
        chosen: The resulting config node of a method.
        grounds: The nodes that a tuned file may be merged over.
        named: Dotted paths of nodes that are always included.
    """
    out: dict[str, Any] = {}
    for key, value in chosen.items():
        below = [ground.get(key, ABSENT) for ground in grounds]
        if isinstance(value, Mapping) and not _leaves_values(value, below):
            inner = [n.removeprefix(f"{key}.") for n in named if n.startswith(f"{key}.")]
            deeper = [b if isinstance(b, Mapping) else {} for b in below]
            found = find_changes(value, deeper, list(value) if key in named else inner)
            if found or any(b != value for b in below):
                out[key] = found
        elif key in named or any(b != value for b in below):
            out[key] = as_interpolation(value) if isinstance(value, Mapping) else value
    return out


def _leaves_values(node: Mapping[str, Any], below: Iterable[Any]) -> bool:
    """Return whether merging would leave values in a node that it does not have."""
    return any(set(b) - set(node) for b in below if isinstance(b, Mapping))


def as_interpolation(node: Any) -> str:
    """Return a node as an interpolation: unlike a mapping, it replaces what is below it."""
    return "${oc.create:" + _format_inline(node) + "}"


def _format_inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_format_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_format_inline(v) for v in value) + "]"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def format_tuned_file(tree: Mapping[str, Any], notes: Mapping[str, str], head: str) -> str:
    """Return a tuned file.

    Args:
        tree: The changed part of the method's node.
        notes: Comment of each option, by dotted path below ``method``.
        head: Description of the study.
    """
    body = "".join(_format_lines(tree, notes, "", 0))
    return f"# @package method\n# tuned: {head}\n" + (body or "{}\n")


def _format_lines(
    tree: Mapping[str, Any], notes: Mapping[str, str], prefix: str, indent: int
) -> Iterable[str]:
    for key, value in tree.items():
        path, space = f"{prefix}{key}", " " * indent
        if isinstance(value, Mapping) and value:
            yield f"{space}{key}:\n"
            yield from _format_lines(value, notes, f"{path}.", indent + 2)
            continue
        line = f"{space}{key}: {_format_scalar(value)}"
        yield line + (
            "\n" if key.startswith("_") else f"  # {describe_value(notes.get(path), value)}\n"
        )


def _format_scalar(value: Any) -> str:
    shown = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return shown.removesuffix("\n").removesuffix("\n...")


def describe_value(note: str | None, value: Any) -> str:
    """Return the comment of a tuned value, without the source of the default."""
    if note is None:
        return "tuned"
    plain = CITATION_PATTERN.sub("", note)
    if isinstance(value, int | float) and not isinstance(value, bool):
        plain = plain.partition(";")[0]
    return f"{plain}; tuned"


def format_trials(trials: Sequence[FinishedTrial]) -> str:
    """Return all trials as CSV, best first: settings, score, accuracies by cell."""
    rows = [_trial_row(t) for t in sorted(trials, key=lambda t: (t.pruned, -t.score, t.place))]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writerow({column: escape_formula(column) for column in columns})
    writer.writerows({key: escape_formula(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _trial_row(trial: FinishedTrial) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial.place + 1, "score": trial.score}
    row |= {"pruned": trial.pruned, "seconds": round(trial.seconds, 2)}
    for override in trial.overrides:
        key, _, value = override.partition("=")
        row[key] = value
    for name, score in trial.scores.items():
        row |= {f"{name}: kept": score.kept, f"{name}: healed": score.healed}
    return row
