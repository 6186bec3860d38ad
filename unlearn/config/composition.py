"""Composes and checks configs before hydra runs, so that input errors take one line."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from unlearn.config.command_line import Arguments
from unlearn.config.identity import to_plain_config
from unlearn.config.input_checks import check_inputs, check_known_keys
from unlearn.config.options import (
    OPTIONAL_GROUPS,
    check_choices,
    explain_unknown_option,
    find_owners,
    has_option,
    offered_options,
)
from unlearn.config.registration import register_schemas
from unlearn.config.resolved_cache import ConfigCache, is_group
from unlearn.config.schema import SCHEMAS
from unlearn.config.validation import check_config, iterate_leaves, suggest_names
from unlearn.core.errors import ConfigError

CROSS_CHECKED_KEYS = ("dataset", "corrupt", "discovery", "detector", "forget_set", "experiment")
"""Prefixes of the keys whose values are checked against each other."""


@contextmanager
def enable_composition(folders: Sequence[str]) -> Iterator[None]:
    """Make the configs available to ``compose`` and restore hydra's global state afterwards."""
    register_schemas()
    outer = GlobalHydra.instance().hydra  # state of the job that calls this
    GlobalHydra.instance().clear()
    before = HydraConfig.instance().cfg
    try:
        with initialize_config_dir(folders[0], version_base="1.3"):
            yield
    finally:
        HydraConfig.instance().cfg = before
        GlobalHydra.instance().hydra = outer


UNREADABLE = (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError, RecursionError)
"""Errors of hydra, OmegaConf and YAML on configs that cannot be read."""


def compose_config(name: str, overrides: Sequence[str], folders: Sequence[str]) -> DictConfig:
    """Return a composed config including hydra's part; call within ``enable_composition``.

    Raises:
        ConfigError: If it cannot be composed.
    """
    try:
        config = _compose_unchecked(name, overrides, folders)
    except UNREADABLE as error:
        raise ConfigError(explain_error(error, name, overrides, folders)) from error
    HydraConfig.instance().set_config(config)
    for group, option in config.hydra.runtime.choices.items():
        if ".." in str(option).split("/"):  # names of options are file names
            raise ConfigError(f"{group} must be the name of an option, got {option}")
    check_choices(name, config, parse_overrides(overrides, folders))
    return config


def _compose_unchecked(name: str, overrides: Sequence[str], folders: Sequence[str]) -> DictConfig:
    path = ",".join("file://" + folder for folder in folders[1:])
    extra = [f"hydra.searchpath=[{path}]"] if path else []
    return compose(name, [*overrides, *extra], return_hydra_config=True)


def resolve_config(config: DictConfig) -> dict[str, Any]:
    """Return a config's values.

    Raises:
        ConfigError: If an interpolation leads nowhere.
    """
    try:
        return to_plain_config(config)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error


def explain_error(
    error: Exception, name: str, overrides: Sequence[str], folders: Sequence[str]
) -> str:
    """Return hydra's error message as one line."""
    text = str(error)
    if "Config group override must be a string" in text:
        return _explain_group_value(overrides)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if group == "forget_set" and has_option("detector", option, folders):
            return f"{option} is a detector: discovery={option}, not forget_set={option}"
        known = offered_options(name, group, {}, folders) if group == "experiment" else None
        return explain_unknown_option(group, option, sorted(known or error.options or []))
    key = re.search(r"(?:Could not override|full_key:|Key) '?([\w./@-]+)'?", text)
    cause = error.__cause__
    if cause is not None and "could not be converted" in str(cause):
        value = re.search(r"Value '(.*?)' of type", str(cause))
        kind = re.search(r"converted to (\w+)", str(cause))
        where = re.search(r"full_key: (\S+)", str(cause))
        wanted = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false"}
        if value and kind and where:
            shown = wanted.get(kind.group(1), kind.group(1))
            return f"{where.group(1)} must be {shown}, got {value.group(1)}"
    if text.startswith("Error merging override") and cause is not None:
        key_, _, value = text.removeprefix("Error merging override ").partition("=")
        reason = str(cause).splitlines()[0]
        kinds = {"valid bool": "true or false", "not a ListConfig": "a list", "to Dict": "a group"}
        kind = next((k for word, k in kinds.items() if word in reason), "a value")
        return f"{key_} must be {kind}, got {value.splitlines()[0]}"
    if key and ("Could not override" in text or "not in" in text):
        owners = find_owners(key.group(1), folders)
        return f"unknown key '{key.group(1)}'" + (
            owners or _suggest_key(key.group(1), name, overrides, folders)
        )
    return " ".join(text.split())


def _explain_group_value(overrides: Sequence[str]) -> str:
    """Return the message for a number given in place of a group's option."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value = override.value()
        if override.key_or_group in OPTIONAL_GROUPS and value is None:
            return f"{override.key_or_group} is left out by ~{override.key_or_group}"
        if is_group(override) and value is not None and not isinstance(value, str | list):
            key = override.key_or_group
            hint = f"; a number is given as discovery={value}" if key == "discovery_rate" else ""
            return f"{key} must be one of the group's names, got {value}{hint}"
    return "a group must be chosen by one of its names"


def _suggest_key(key: str, name: str, overrides: Sequence[str], folders: Sequence[str]) -> str:
    groups = [o for o in overrides if "=" in o and _chooses_group(o)]
    try:
        config = _compose_unchecked(name, groups, folders)
        HydraConfig.instance().set_config(config)
        keys = [path for path, _ in iterate_leaves(to_plain_config(config)) if "._" not in path]
    except UNREADABLE:
        return ""
    names = sorted({k.partition(".")[0] for k in keys}) if "." not in key else keys
    return suggest_names(key, names)


def _chooses_group(override: str) -> bool:
    try:
        return is_group(OverridesParser.create().parse_override(override))
    except OverrideParseException:
        return False


def _config_loader(folders: Sequence[str]) -> ConfigLoaderImpl:
    path = create_config_search_path(folders[0])
    for folder in folders[1:]:
        path.append("command-line", f"file://{folder}")
    return ConfigLoaderImpl(path)


def expand_overrides(name: str, arguments: Arguments) -> list[list[str]]:
    """Return the overrides of every job, including those of the config's own sweep.

    Raises:
        ConfigError: If the overrides cannot be read, or sweep without --multirun.
    """
    parsed = parse_overrides(arguments.overrides, arguments.folders)
    sweeps = [o for o in parsed if o.is_sweep_override()]
    several, grids = arguments.multirun, [[]]
    if several or any(o.key_or_group in ("sweep", "experiment") for o in parsed):
        several, grids = _read_config_sweep(name, parsed, arguments)
    if not several:
        if sweeps:
            first = sweeps[0].input_line
            raise ConfigError(f"'{first}' names several values; add --multirun to run them all")
        return [list(arguments.overrides)]
    jobs: dict[tuple[str, ...], None] = {}  # in order, each once
    for grid in grids:
        every = parse_overrides([*grid, *arguments.overrides], arguments.folders)
        batches = BasicSweeper.split_arguments(every, max_batch_size=None)
        jobs |= {tuple(job): None for batch in batches for job in batch}
    return [list(job) for job in jobs]


def parse_overrides(overrides: Sequence[str], folders: Sequence[str]) -> list[Override]:
    """Return overrides as parsed by hydra.

    Raises:
        ConfigError: If one cannot be read.
    """
    try:
        parser = OverridesParser.create(_config_loader(folders))  # glob() looks for options
        return parser.parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigError(
            f"cannot read '{error.override}': {str(error).splitlines()[0]}"
        ) from error


def _read_config_sweep(
    name: str, parsed: Sequence[Override], arguments: Arguments
) -> tuple[bool, list[list[str]]]:
    """Return whether there are several jobs, and the overrides of the config's own sweep.

    A sweep is one grid, ``params``, or several grids, ``grids``, each combined with it.
    """
    fixed = [o.input_line or "" for o in parsed if not o.is_sweep_override()]
    with enable_composition(arguments.folders):
        own = compose_config(name, fixed, arguments.folders).hydra
    shared = own.sweeper.get("params") or {}
    grids = [grid or {} for grid in (own.sweeper.get("grids") or {"all": {}}).values()]
    said = [[f"{key}={value}" for key, value in {**shared, **grid}.items()] for grid in grids]
    return arguments.multirun or own.mode == RunMode.MULTIRUN, said


def select_covering_jobs(jobs: list[list[str]]) -> list[list[str]]:
    """Return a covering subset of jobs: each override, and each combination that checks relate."""
    seen: set[str] = set()
    mixes: set[tuple[str, ...]] = set()
    chosen = []
    defaults = any(o.startswith("method_defaults") for overrides in jobs for o in overrides)
    related = (*CROSS_CHECKED_KEYS, *(("method=", "method_defaults") if defaults else ()))
    for overrides in jobs:
        mix = tuple(o for o in overrides if o.lstrip("+~").startswith(related))
        if mix not in mixes or not seen.issuperset(overrides):
            seen.update(overrides)
            mixes.add(mix)
            chosen.append(overrides)
    return chosen or jobs[:1]


def check_jobs(
    name: str, arguments: Arguments, bases: ConfigCache | None = None, *, files: bool = True
) -> list[list[str]]:
    """Compose and check the jobs, each override at least once; return the overrides of each.

    Args:
        name: Name of the primary config.
        arguments: The command line.
        bases: Configs composed so far.
        files: Also check the files that a job reads; False for data that are passed in Python.

    Raises:
        ConfigError: At the first problem.
    """
    bases = make_config_cache(name, arguments) if bases is None else bases
    jobs = expand_overrides(name, arguments)
    with enable_composition(arguments.folders):
        for overrides in select_covering_jobs(jobs):
            config, defaults = _resolve_with_defaults(name, overrides, arguments, bases)
            check_config(config, defaults)
            check_known_keys(config, SCHEMAS[name])
            if files:
                check_inputs(config, defaults)
    return jobs


def _resolve_with_defaults(
    name: str, overrides: Sequence[str], arguments: Arguments, bases: ConfigCache
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a job's resolved config, and the resolved config of its group choices only."""
    if bases.is_cacheable(overrides):
        with suppress(*UNREADABLE):
            return bases.resolve_job(overrides), bases.resolve_defaults(overrides)
    # Compose it as a whole to get the error.
    content = resolve_config(compose_config(name, overrides, arguments.folders))
    groups = [o for o in overrides if _chooses_group(o)]
    return content, resolve_config(compose_config(name, groups, arguments.folders))


def make_config_cache(name: str, arguments: Arguments) -> ConfigCache:
    """Return the configs of a command line; call within ``enable_composition``."""
    return ConfigCache(lambda groups: compose_config(name, groups, arguments.folders))
