"""The command line: what it asks for, in hydra's words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig

from unlearn.config.registration import config_dir
from unlearn.core.errors import ConfigError


@dataclass(frozen=True)
class Arguments:
    """What the command line asks for."""

    overrides: list[str]
    multirun: bool
    help: bool
    show: str | None
    folders: list[str]


def parse_command_line(argv: Sequence[str]) -> Arguments:
    """Return the command line's parts, by hydra's own parser."""
    parser = get_args_parser()
    parser.error = _refuse_arguments  # argparse would print its whole usage
    found = parser.parse_intermixed_args([expand_shorthand(word) for word in argv])
    for option in ("config_name", "config_path", "package"):
        if getattr(found, option):
            flag = option.replace("_", "-")
            raise ConfigError(f"--{flag} is not offered; --config-dir adds configs of your own")
    folders = [config_dir()]
    if found.config_dir:
        folder = Path(found.config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: {folder} is not a folder")
        folders.append(str(folder))
    for word in argv:
        if re.fullmatch("discovery=(?!null$)[a-z_]+", word):
            _check_detector(word.partition("=")[2], folders)
    return Arguments(found.overrides, found.multirun, found.help, found.cfg, folders)


def expand_shorthand(word: str) -> str:
    """Return an argument as hydra knows it.

    ``base=scrub`` chooses the method within a method, ``discovery=cleanlab`` what finds the forget
    set, ``discovery=half`` a preset of the rate.
    """
    if word.startswith("base="):
        return f"method@method.{word}"
    names = word.removeprefix("discovery=").split(",")
    named = [re.fullmatch("[a-z_]+", name) is not None and name != "null" for name in names]
    if not word.startswith("discovery=") or not any(named):
        return word
    if not all(named):
        raise ConfigError(f"{word}: rates and detectors are two sweeps; give the detectors alone")
    presets = {p.stem for p in (Path(config_dir()) / "discovery_rate").glob("*.yaml")}
    group = "discovery_rate" if presets.issuperset(names) else "forget_set"
    return f"{group}={','.join(names)}"


def _check_detector(word: str, folders: Sequence[str]) -> None:
    """Refuse a word for ``discovery`` that names nothing."""
    places = [Path(f) / g for f in folders for g in ("forget_set", "discovery_rate")]
    if any((place / f"{name}.yaml").exists() for place in places for name in word.split(",")):
        return
    known = sorted(p.stem for p in places[0].glob("*.yaml") if "detection." in p.read_text())
    raise ConfigError(
        f"discovery must be a number in (0, 1] or a detector ({', '.join(known)}), got {word}"
    )


CHECKPOINT_DEFAULTS = {"corruption": "none", "evaluation": "change"}
"""What a checkpoint of the user's own goes with: its data are as they are, nobody knows the truth."""


def add_checkpoint_defaults(name: str, argv: Sequence[str]) -> list[str]:
    """Return the command line with what follows from a checkpoint to be healed."""
    own = [w for w in argv if w.startswith("checkpoint=") and w not in ("checkpoint=null",)]
    if name != "unlearn" or not own:
        return list(argv)
    return [*argv, *(f"{group}={option}" for group, option in CHECKPOINT_DEFAULTS.items()
                     if not any(w.startswith(f"{group}=") for w in argv))]  # fmt: skip


def read_running_command() -> Arguments:
    """Return what the job asked for that hydra runs now."""
    own = HydraConfig.get()
    files = [s.path for s in own.runtime.config_sources if s.schema == "file"]
    return Arguments(list(own.overrides.task), False, False, None, files)


def flags_first(argv: Sequence[str], arguments: Arguments) -> list[str]:
    """Return the command line with overrides last: hydra's own parser takes them in no other way."""
    rest = [expand_shorthand(word) for word in argv]
    for override in arguments.overrides:
        rest.remove(override)
    return [*rest, *arguments.overrides]


def _refuse_arguments(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help")
