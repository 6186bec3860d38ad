"""Parsing of the command line into hydra's arguments."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig

from unlearn.config.checkpoint_input import add_checkpoint_input, add_training_defaults
from unlearn.config.help_layout import find_topic
from unlearn.config.options import EXPERIMENTS, has_option, option_names
from unlearn.config.registration import config_dir
from unlearn.core.errors import ConfigError


@dataclass(frozen=True)
class Arguments:
    """The parsed command line."""

    overrides: list[str]
    multirun: bool
    help: bool
    show: str | None
    folders: list[str]
    command: str = "unlearn"
    topic: str | None = None
    completion: bool = False


def parse_command_line(argv: Sequence[str], command: str = "unlearn") -> Arguments:
    """Return the command line's parts, by hydra's own parser.

    Args:
        argv: The words behind the program's name.
        command: train, unlearn or evaluate.

    Raises:
        ConfigError: If a word cannot be read or names nothing.
    """
    parser = get_args_parser()
    parser.error = _refuse_arguments  # argparse would print the whole usage
    found = parser.parse_intermixed_args(list(argv))
    for option in ("config_name", "config_path", "package"):
        if getattr(found, option):
            flag = option.replace("_", "-")
            raise ConfigError(f"--{flag} is not supported; add your own configs by --config-dir")
    folders = [config_dir()]
    if found.config_dir:
        folder = Path(found.config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: {folder} is not a folder")
        folders.append(str(folder))
    topic, given = None, found.overrides
    if found.shell_completion:
        return Arguments(given, False, False, None, folders, command, completion=True)
    if found.help:
        topic, given = find_topic(given)
    check_words(given)
    words = [expand_shorthand(word, command, folders) for word in given]
    return Arguments(words, found.multirun, found.help, found.cfg, folders, command, topic)


def check_words(words: Sequence[str]) -> None:
    """Check that every override is ``key=value`` in one word, or ``~key``.

    Raises:
        ConfigError: If one is not; says how to write it.
    """
    for place, word in enumerate(words):
        after = words[place + 1] if place + 1 < len(words) else ""
        if after.startswith("=") and "=" not in word:
            value = after[1:] or (words[place + 2] if place + 2 < len(words) else "...")
            raise ConfigError(f"write {word}={value} without spaces around '='")
        if word.endswith("=") and after and "=" not in after and not after.startswith("~"):
            raise ConfigError(f"write {word}{after} without spaces around '='")
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(f"'{word}' is not an option: options are written key=value")


def expand_shorthand(word: str, command: str, folders: Sequence[str]) -> str:
    """Return an argument in hydra's syntax.

    ``base=scrub`` chooses the method within a method, ``discovery=cleanlab`` what finds the forget
    set, ``discovery=half`` a preset of the rate, ``experiment=demo`` an experiment of the command.

    Args:
        word: The argument.
        command: train, unlearn or evaluate.
        folders: Folders of configs.

    Raises:
        ConfigError: If the name is unknown or must be chosen by another key.
    """
    if word.startswith("base="):
        return f"method@method.{word}"
    if word.startswith("experiment="):
        found = re.fullmatch(r"experiment=glob\((.*)\)", word)
        if found:
            names = option_names(f"experiment/{EXPERIMENTS[command]}", folders)
            word = f"experiment={','.join(fnmatch.filter(names, found[1]))}"
        return re.sub(
            r"(?<=[=,(])[\w/-]+(?=[,)]|$)",
            lambda name: _find_experiment(name.group(), command, folders),
            word,
        )
    if word.startswith("detector="):
        raise ConfigError(f"a detector is chosen by discovery={word.partition('=')[2]}, got {word}")
    return _expand_discovery(word, folders)


def _find_experiment(name: str, command: str, folders: Sequence[str]) -> str:
    """Return an experiment's name in its group; raise an error for one of another command."""
    if has_option(f"experiment/{EXPERIMENTS[command]}", name, folders):
        return f"{EXPERIMENTS[command]}/{name}"
    for other, folder in EXPERIMENTS.items():
        short = name.removeprefix(f"{folder}/")
        if other != command and has_option(f"experiment/{folder}", short, folders):
            raise ConfigError(
                f"experiment={name} belongs to {other}.py, not to {command}.py: "
                f"python {other}.py experiment={short}"
            )
    return name


def _expand_discovery(word: str, folders: Sequence[str]) -> str:
    names = word.removeprefix("discovery=").split(",")
    named = [re.fullmatch(r"[A-Za-z_]\w*", name) is not None and name != "null" for name in names]
    if not word.startswith("discovery=") or not any(named):
        return word
    if not all(named):
        raise ConfigError(f"{word}: rates and detectors cannot share a sweep; run two sweeps")
    known = {group: option_names(group, folders) for group in ("discovery_rate", "detector")}
    for group, options in known.items():
        if set(options).issuperset(names):
            return f"{group.replace('detector', DETECTOR)}={','.join(names)}"
    found = ", ".join(known["detector"])
    absent = [name for name in names if name not in {n for own in known.values() for n in own}]
    if not absent:
        raise ConfigError(f"{word}: rates and detectors cannot share a sweep; run two sweeps")
    hint = f"; forget_set={absent[0]} is a forget set" * has_option(
        "forget_set", absent[0], folders
    )
    raise ConfigError(
        f"discovery must be a number in (0, 1] or a detector ({found}), got {absent[0]}{hint}"
    )


DETECTOR = "detector@forget_set"
"""The group of detectors with its package: a detector replaces the forget set."""


CHECKPOINT_DEFAULTS = {"corruption": "none", "evaluation": "change", "method": "auto"}
"""Defaults with a user's own checkpoint: uncorrupted data, no ground truth, a method that is chosen."""


def add_checkpoint_defaults(name: str, argv: Sequence[str]) -> list[str]:
    """Return the command line with the defaults that a user's checkpoint implies.

    Raises:
        ConfigError: If the input of the checkpoint is not known.
    """
    own = [w for w in argv if w.startswith("checkpoint=") and w not in ("checkpoint=null",)]
    if name != "unlearn" or not own:
        return list(argv)
    argv = add_training_defaults(add_checkpoint_input(argv))
    given = {w.partition("=")[0] for w in argv}
    if "experiment" in given:  # it may choose the method
        given.add("method")
    return [*argv, *(f"{k}={v}" for k, v in CHECKPOINT_DEFAULTS.items() if k not in given)]


def read_running_command() -> Arguments:
    """Return the arguments of the job that hydra is running."""
    own = HydraConfig.get()
    files = [s.path for s in own.runtime.config_sources if s.schema == "file"]
    return Arguments(list(own.overrides.task), False, False, None, files)


def flags_first(argv: Sequence[str], arguments: Arguments) -> list[str]:
    """Return the command line with overrides last, as hydra's parser requires."""
    rest = [expand_shorthand(word, arguments.command, arguments.folders) for word in argv]
    for override in arguments.overrides:
        rest.remove(override)
    return [*rest, *arguments.overrides]


def _refuse_arguments(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help")
