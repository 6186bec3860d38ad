"""Selects the launcher that swept experiments set."""

import json
from collections.abc import Sequence

from omegaconf import OmegaConf

from unlearn.config.command_line import Arguments
from unlearn.config.composition import compose_config, enable_composition, parse_overrides
from unlearn.config.validation import iterate_leaves
from unlearn.core.errors import ConfigError


def choose_launcher(name: str, arguments: Arguments, jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return overrides for the launcher that swept experiments set, which hydra ignores.

    Hydra creates the launcher before it composes the experiment of a job (its issue 2946).

    Raises:
        ConfigError: If they set different launchers.
    """
    parsed = parse_overrides(arguments.overrides, arguments.folders)
    swept = any(o.is_sweep_override() and o.key_or_group == "experiment" for o in parsed)
    if not swept:
        return []
    found: dict[str, list[str]] = {}
    with enable_composition(arguments.folders):
        for job in {o: j for j in jobs for o in j if o.startswith("experiment=")}.items():
            own = compose_config(name, job[1], arguments.folders).hydra
            node = OmegaConf.to_container(own.launcher, resolve=True)
            assert isinstance(node, dict)
            values = [(k, v) for k, v in iterate_leaves(node) if k != "_target_"]  # type: ignore[arg-type]
            found[job[0]] = [
                f"hydra/launcher={own.runtime.choices['hydra/launcher']}",
                *(f"hydra.launcher.{key}={json.dumps(value)}" for key, value in values),
            ]
    first, *others = found.items()
    for other in others:
        if other[1] != first[1]:
            raise ConfigError(
                f"one sweep has one launcher, but {first[0]} chooses {' '.join(first[1])} and "
                f"{other[0]} {' '.join(other[1])}; give hydra/launcher=... on the command line"
            )
    return first[1]
