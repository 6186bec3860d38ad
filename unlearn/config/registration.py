"""Location of the configs, and registration of the schemas with Hydra."""

import os
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from unlearn.config.identity import run_id_of_config
from unlearn.config.schema import SCHEMAS
from unlearn.core.errors import ConfigError
from unlearn.core.timm_input import NetworkInput, read_network_input


def config_dir() -> str:
    """Return the absolute folder of the configs, inside the installed package or next to it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


def register_schemas() -> None:
    """Register schemas and the ``run_id`` resolver; repeated calls have no effect."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        node = OmegaConf.structured(schema)
        if "where" in node:  # columns are unknown here: allow any key, without "+"
            OmegaConf.set_struct(node.where, False)
        store.store(name=f"schema_{name}", node=node)
    OmegaConf.register_new_resolver("run_id", _folder_name, replace=True, use_cache=False)
    OmegaConf.register_new_resolver("option", _chosen_option, replace=True, use_cache=False)
    OmegaConf.register_new_resolver("timm_input", _network_input, replace=True, use_cache=False)


def _folder_name(_root_: DictConfig) -> str:
    """Return the name of a job's folder; each process of a tuning study has its own."""
    studies = bool(OmegaConf.select(_root_, "tune.trials", default=0))
    return (f"tune-{os.getpid()}-" if studies else "") + run_id_of_config(_root_)


def _chosen_option(group: str) -> str | None:
    """Return the chosen option of a group, None if there is none."""
    return HydraConfig.get().runtime.choices.get(group)


def _network_input(key: str, _root_: DictConfig) -> Any:
    """Return an entry of the data config of the chosen network of timm.

    Raises:
        ConfigError: If timm is not installed.
    """
    name = OmegaConf.select(_root_, "model.name", default=None)
    try:  # without a name, which is refused later, the usual values
        found = NetworkInput() if name is None else read_network_input(str(name))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    value = getattr(found, key)
    return list(value) if isinstance(value, tuple) else value
