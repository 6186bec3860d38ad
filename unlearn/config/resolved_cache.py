"""Resolved configs of many jobs: composed once per choice of groups, then modified.

Hydra needs 0.1 s or more per config. Here it composes one per choice of groups; a
value that nothing refers to is set in the resolved config, others in a copy of the composed one.
"""

import copy
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir


def is_group(override: Override) -> bool:
    """Return whether an override chooses an option of a group rather than a value."""
    return "." not in override.key_or_group and any(
        (Path(folder) / override.key_or_group).is_dir() for folder in [config_dir()]
    )


class ConfigCache:
    """The configs of a command line, each composed once."""

    def __init__(self, compose: Callable[[Sequence[str]], DictConfig]) -> None:
        """Initialize with ``compose``, which is called with the overrides that choose groups."""
        self._compose = compose
        self._bases: dict[tuple[str, ...], _CachedConfig] = {}
        self._converted: dict[str, Any] = {}
        self._parse = functools.cache(OverridesParser.create().parse_override)

    def resolve_job(self, job: Sequence[str]) -> dict[str, Any]:
        """Return the resolved config of a job, without Hydra's own values."""
        values = [
            o for o in map(self._parse, job) if not (_changes_defaults(o) or o.is_hydra_override())
        ]
        return self._find_base(job).resolve_with(values)

    def resolve_defaults(self, job: Sequence[str]) -> dict[str, Any]:
        """Return the resolved config of a job's group choices only."""
        return self._find_base(job).resolve_with([])

    def is_cacheable(self, job: Sequence[str]) -> bool:
        """Return whether a job sets none of Hydra's own values."""
        return not any(o.is_hydra_override() for o in map(self._parse, job))

    def _find_base(self, job: Sequence[str]) -> "_CachedConfig":
        parsed = map(self._parse, job)
        groups = tuple(o.input_line or "" for o in parsed if _changes_defaults(o))
        if groups not in self._bases:
            self._bases[groups] = _CachedConfig(self._compose(groups), self._converted)
        return self._bases[groups]


class _CachedConfig:
    """A composed config on which values are set."""

    def __init__(self, config: DictConfig, converted: dict[str, Any]) -> None:
        self.config = config
        self.converted = converted  # top-level values converted by the schema
        own = {str(k): v for k, v in OmegaConf.to_container(config).items() if k != "hydra"}  # type: ignore[union-attr]
        self.references = " ".join(re.findall(r"\$\{[^}]*\}", json.dumps(own)))
        self.known: dict[tuple[str, ...], dict[str, Any]] = {}

    def resolve_with(self, values: Sequence[Override]) -> dict[str, Any]:
        """Return the resolved config with the values set."""
        free = [o for o in values if self._is_independent(o)]
        content = self._set_values([o for o in values if o not in free])
        for override in free:
            path = override.key_or_group.split(".")
            content = _set_leaf(content, path, self._convert_value(override, path))
        return content

    def _convert_value(self, override: Override, path: Sequence[str]) -> Any:
        line = override.input_line or ""
        if len(path) == 1 and line in self.converted:
            return self.converted[line]
        value = _get_leaf(self._set_values([override]), path)
        if len(path) == 1:
            self.converted[line] = value
        return value

    def _is_independent(self, override: Override) -> bool:
        """Return whether a plain value is set that nothing refers to."""
        plainly = not (override.is_add() or override.is_force_add() or override.is_delete())
        leaf = override.key_or_group.rpartition(".")[2]
        scalar = isinstance(override.value(), str | int | float | bool)
        return plainly and scalar and leaf not in self.references

    def _set_values(self, values: Sequence[Override]) -> dict[str, Any]:
        lines = tuple(o.input_line or "" for o in values)
        if lines not in self.known:
            config = copy.deepcopy(self.config)
            ConfigLoaderImpl._apply_overrides_to_config(list(values), config)
            HydraConfig.instance().set_config(config)
            self.known[lines] = to_plain_config(config)
        return self.known[lines]


def _get_leaf(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _set_leaf(tree: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of a nested mapping with one leaf replaced; the rest is shared."""
    key, *rest = path
    return {**tree, key: _set_leaf(tree[key], rest, value) if rest else value}


def _changes_defaults(override: Override) -> bool:
    """Return whether an override changes the defaults list."""
    key = override.key_or_group
    return override.package is not None or "/" in key or is_group(override)
