"""The options of config groups, by the files that hold them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

EXPERIMENTS = {"train": "train", "unlearn": "unlearn", "evaluate": "report"}
"""Subfolder of ``experiment`` that holds the experiments of a command."""


def option_names(group: str, folders: Sequence[str]) -> list[str]:
    """Return the names of a group's options, sorted."""
    return sorted({p.stem for f in folders for p in (Path(f) / group).glob("*.yaml")})


def has_option(group: str, name: str, folders: Sequence[str]) -> bool:
    """Return whether a group has an option of this name."""
    return any((Path(f) / group / f"{name}.yaml").is_file() for f in folders)


def offered_options(
    command: str, group: str, choices: Mapping[str, str | None], folders: Sequence[str]
) -> list[str]:
    """Return the names of a group's options that a command offers.

    An experiment is one of the command's own; method defaults are those of the chosen method.

    Args:
        command: train, unlearn or evaluate.
        group: Name of the group.
        choices: Chosen option of each group.
        folders: Folders of configs.
    """
    if group == "method_defaults":
        method = choices.get("method")
        return [f"{method}/{name}" for name in option_names(f"{group}/{method}", folders)]
    own = option_names(f"{group}/{EXPERIMENTS[command]}", folders) if group == "experiment" else []
    return sorted({*own, *option_names(group, folders)})
