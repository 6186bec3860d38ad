"""Tab completion of the commands for bash, zsh and fish: ``-sc install=bash``.

The printed script asks the command itself, ``-sc query=bash``, with the line in ``COMP_LINE``.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from unlearn.config.command_line import DETECTOR, Arguments, expand_shorthand
from unlearn.config.composition import compose_config, enable_composition, resolve_config
from unlearn.config.constraints import get_rule
from unlearn.config.options import offered_options, option_names
from unlearn.config.validation import iterate_leaves
from unlearn.core.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
FLAGS = ("--help", "--multirun", "--config-dir", "--cfg")
FILE_KEYS = ("checkpoint", "path", "root", "folder")
"""Last parts of the keys whose values are files or folders."""


def complete(name: str, arguments: Arguments) -> str:
    """Return the script of a shell, or the completions of a line, one per line.

    Args:
        name: train, unlearn or evaluate.
        arguments: The command line, ``-sc install=SHELL``, ``uninstall=SHELL`` or ``query=SHELL``.

    Raises:
        ConfigError: If it is anything else.
    """
    word = arguments.overrides[0] if arguments.overrides else ""
    action, _, shell = word.partition("=")
    if action not in ("install", "uninstall", "query") or shell not in SHELLS:
        raise ConfigError(
            f"-sc must be install=SHELL or uninstall=SHELL with SHELL one of {', '.join(SHELLS)}, "
            f"got '{word}'"
        )
    if action == "query":
        return "\n".join(list_completions(name, os.environ.get("COMP_LINE", ""), arguments.folders))
    suffix = "" if action == "install" else ".remove"
    source = files("unlearn.config.shells") / f"complete{suffix}.{shell}"
    return source.read_text(encoding="utf-8")


def list_completions(name: str, line: str, folders: Sequence[str]) -> list[str]:
    """Return the words that can stand in place of the last word of a line, sorted.

    Args:
        name: train, unlearn or evaluate.
        line: The line up to the cursor, with the name of the program.
        folders: Folders of configs.
    """
    words = line.split()
    last = "" if line[-1:].isspace() or not words else words.pop()
    given = [w for w in words if "=" in w and not w.startswith("-")]
    if last.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(last)]
    try:
        with enable_composition(folders):
            config = compose_config(
                name, [expand_shorthand(w, name, folders) for w in given], folders
            )
            choices = dict(config.hydra.runtime.choices)
            values = resolve_config(config)
    except ConfigError:  # the line is not valid yet
        return []
    key, mark, value = last.partition("=")
    if not mark:
        found = {f"{g}=" for g in _list_groups(name, choices, folders)} | set(
            _list_keys(values, last)
        )
        return sorted(word for word in found if word.startswith(last))
    done, comma, part = value.rpartition(",")
    every = _list_values(name, key, part, choices, values, folders)
    return sorted(f"{key}={done}{comma}{v}" for v in every if str(v).startswith(part))


def _list_groups(name: str, choices: Mapping[str, Any], folders: Sequence[str]) -> Iterator[str]:
    for group in choices:
        if "@" not in group and not group.startswith("hydra") and group != "discovery_rate":
            if offered_options(name, group, choices, folders):
                yield group


def _list_keys(values: Mapping[str, Any], last: str) -> Iterator[str]:
    """Yield keys of the config up to the next dot behind the last word."""
    depth = last.count(".") + 1
    for path, _ in iterate_leaves(values):
        parts = path.split(".")
        if any(part.startswith("_") for part in parts) or parts[0] in ("chosen", "names"):
            continue
        yield ".".join(parts[:depth]) + ("." if len(parts) > depth else "=")


def _list_values(
    name: str,
    key: str,
    part: str,
    choices: Mapping[str, Any],
    values: Mapping[str, Any],
    folders: Sequence[str],
) -> list[str]:
    if key == "discovery":
        rates = [n for n in option_names("discovery_rate", folders) if n != "none"]
        return [*rates, *option_names(DETECTOR.partition("@")[0], folders)]
    if key in choices:
        return [n.rpartition("/")[2] if key == "experiment" else n
                for n in offered_options(name, key, choices, folders)]  # fmt: skip
    if key.rpartition(".")[2] in FILE_KEYS:
        return list(_list_paths(part))
    usual = dict(iterate_leaves(values)).get(key)
    if isinstance(usual, bool):
        return ["true", "false"]
    rule = get_rule(key)
    allowed = rule[1].rpartition("one of ")[2] if rule and "one of " in rule[1] else ""
    return [word for word in allowed.split(", ") if word]


def _list_paths(part: str) -> Iterator[str]:
    """Yield files and folders that begin with a text; folders end with a slash."""
    folder, slash, start = part.rpartition("/")
    top = Path(folder + slash) if slash else Path()
    try:
        entries = sorted(top.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
            yield f"{folder}{slash}{entry.name}" + "/" * entry.is_dir()
