"""Layout of ``--help``: sections of groups, wrapped lines, and which options are shown."""

import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SECTIONS: dict[str, tuple[str, ...]] = {
    "Data": ("dataset", "augment", "corruption", "discovery", "forget_set", "trusted"),
    "Model": ("model", "pretraining", "pretraining_defaults"),
    "Method": ("method", "method_defaults", "auto_methods", "localization", "score"),
    "Evaluation": ("evaluation", "compare_scores", "diagnosis"),
    "Run": ("experiment", "sweep", "trainer", "logger", "paths"),
}
"""Sections of config groups, in the order of the help."""

FURTHER = "Further groups"
FEW = ("method",)
"""Groups of options that the short help shows beside the top-level options."""


def find_width() -> int:
    """Return the width of the help in columns: that of the terminal, 60 to 110; piped: 100."""
    return min(max(shutil.get_terminal_size((100, 24)).columns, 60), 110)


def sort_groups(lines: Mapping[str, str]) -> list[str]:
    """Return the lines of groups in sections with titles.

    Args:
        lines: Text by name of the group.
    """
    known = {name for names in SECTIONS.values() for name in names}
    sections = {**SECTIONS, FURTHER: tuple(name for name in lines if name not in known)}
    out: list[str] = []
    for title, names in sections.items():
        own = [name for name in names if name in lines]
        if own:
            out.append(f" {title}")
        for name in own:
            out += wrap_line(f"  {name}: {lines[name]}", " " * 6)
    return out


def wrap_line(text: str, indent: str, width: int | None = None) -> list[str]:
    """Return a text as lines no wider than the help; words are not broken.

    Args:
        text: One line.
        indent: Start of the further lines.
        width: Columns; None: ``find_width()``.
    """
    return textwrap.wrap(
        text,
        width or find_width(),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [""]


def wrap_options(text: str) -> list[str]:
    """Return annotated YAML as lines no wider than the help; comments continue below themselves.

    Args:
        text: YAML in which each value has one line and a comment follows behind two spaces.
    """
    width, out = find_width(), []
    for line in text.splitlines():
        value, mark, note = line.partition("  # ")
        start = " " * (len(line) - len(line.lstrip()))
        if not mark or len(line) + 2 <= width:
            out.append(f"  {line}")
            continue
        if len(value) + 8 > width // 2:  # no room beside a long value
            out.append(f"  {value}")
            out += wrap_line(f"  {start}  # {note}", f"  {start}  # ")
        else:
            out += wrap_line(f"  {value}  # {note}", f"  {' ' * len(value)}  # ")
    return out


def select_options(values: Mapping[str, Any], topic: str | None) -> dict[str, Any]:
    """Return the options that the help shows.

    Args:
        values: All options of the command.
        topic: None: top-level options and those of the method; "all"; or a group's name.
    """
    if topic == "all":
        return dict(values)
    if topic is not None:
        return {topic: values[topic]}
    return {
        key: value for key, value in values.items()
        if not isinstance(value, Mapping) or key in FEW
    }  # fmt: skip


def describe_rest(
    command: str, values: Mapping[str, Any], shown: Mapping[str, Any], topic: str | None
) -> list[str]:
    """Return the last lines of the help: how to see the options that are not shown."""
    rest = [key for key in values if key not in shown and isinstance(values[key], Mapping)]
    if not rest:
        return []
    lines = ["", *wrap_line(f"Not shown: {', '.join(rest)}.", " " * 11)] if topic is None else [""]
    example = "trainer" if "trainer" in values else rest[0]
    return [
        *lines,
        f"  {command} --help all        every option",
        f"  {command} --help {example:<10} those of one group",
    ]


def join_wrapped(lines: Iterable[str]) -> str:
    """Return lines as a text without spaces at their ends."""
    return "\n".join(re.sub(r"\s+$", "", line) for line in lines)


def find_topic(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the topic among the words behind ``--help``, and the other words.

    A topic is a word without ``=``: "all", or the name of a group.
    """
    topics = [word for word in words if "=" not in word and not word.startswith("~")]
    rest = [word for word in words if word not in topics[:1]]
    return (topics[0] if topics else None), rest
