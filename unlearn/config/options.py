"""The options of config groups, by the files that hold them, and checks of what was chosen."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from unlearn.config.validation import suggest_names
from unlearn.core.errors import ConfigError

EXPERIMENTS = {"train": "train", "unlearn": "unlearn", "evaluate": "report"}
"""Subfolder of ``experiment`` that holds the experiments of a command."""

OPTIONAL_GROUPS = ("pretraining_defaults", "method_defaults")
"""Groups whose option follows from other choices, and may be absent."""


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


def check_choices(command: str, config: DictConfig, overrides: Sequence[Override]) -> None:
    """Check that options of optional groups exist, and that method defaults fit the method.

    Hydra leaves out what an optional group does not have, also if the command line names it.

    Args:
        command: train, unlearn or evaluate.
        config: Composed config including hydra's part.
        overrides: Parsed overrides of the config.

    Raises:
        ConfigError: If they do not.
    """
    choices = config.hydra.runtime.choices
    files = [s.path for s in config.hydra.runtime.config_sources if s.schema == "file"]
    for override in overrides:
        group, option = override.key_or_group, override.value()
        if group not in OPTIONAL_GROUPS or not isinstance(option, str):
            continue
        if not has_option(group, option, files):
            offered = offered_options(command, group, choices, files)
            raise ConfigError(explain_unknown_option(group, option, offered))
    for key, option in choices.items():
        if key.partition("@")[0] != "method_defaults" or option is None:
            continue
        tuned_for = option.rpartition("/")[0]
        if tuned_for != choices["method"]:
            offered = offered_options(command, "method_defaults", choices, files)
            allowed = f"allowed: {', '.join(offered)}" if offered else "that method has none"
            raise ConfigError(
                f"method_defaults={option} holds options of method={tuned_for}, "
                f"got method={choices['method']}; {allowed}"
            )


def explain_unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    """Return the message for an option that a group does not have."""
    known = f"; available: {', '.join(options)}" if options else ""
    hint = suggest_names(option, list(options))
    return f"unknown {group or 'config'} '{option}'{hint}{known}".replace("?;", "?")


def find_owners(key: str, folders: Sequence[str]) -> str:
    """Return a hint to the options of a group that have a key: ``forget_set.path``.

    Args:
        key: Dotted path of a key that the chosen option does not have.
        folders: Folders of configs.
    """
    group, _, own = key.partition(".")
    owners = []
    for option in option_names(group, folders) if own and "." not in own else []:
        for folder in folders:
            path = Path(folder) / group / f"{option}.yaml"
            with suppress(OSError, ValueError, yaml.YAMLError):
                content = yaml.safe_load(path.read_text(encoding="utf-8"))
                if isinstance(content, dict) and own in content:
                    owners.append(f"{group}={option}")
    if not 0 < len(owners) <= 3:
        return ""
    return f"; it is an option of {' or '.join(owners)}: add {owners[0]}"
