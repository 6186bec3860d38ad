"""Checks of files and combinations that would otherwise fail only after torch is imported."""

import codecs
import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn.config.class_flags import read_class_flag
from unlearn.config.validation import suggest_names
from unlearn.core.errors import ConfigError
from unlearn.core.folder_layout import find_layout, list_classes

UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
FROM_FILE = "FromFile"
LOGGER_PACKAGES = {"mlflow": "mlflow", "trackio": "trackio", "tensorboard": "tensorboard"}
TRUSTED_SOURCES = "clean_rows, audit, held_out, or your own images: folder, file"


def check_inputs(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check the files that a job reads first, its localization and its devices.

    Args:
        config: The resolved config of the job.
        defaults: The same choices without the user's values.

    Raises:
        ConfigError: At the first problem.
    """
    check_list(config)
    check_label_table(config)
    check_class_folders(config)
    check_localization(config)
    check_devices(config, defaults)
    check_hub(config)
    check_loggers(config)
    check_trusted_set(config)
    check_dashboard(config)


def check_list(config: Mapping[str, Any]) -> None:
    """Check that the list of a forget set from a file exists, is not UTF-16 and not empty.

    Raises:
        ConfigError: If it does not exist, cannot be read as UTF-8, or holds nothing.
    """
    node = config.get("forget_set") or {}
    if str(node.get("_target_")).rpartition(".")[2] != FROM_FILE or config.get("advise"):
        return
    path = Path(str(node.get("path")))
    if not path.is_file():
        raise ConfigError(f"forget_set.path must be a file, got {path}, which does not exist")
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise ConfigError(f"forget_set.path: cannot read {path}: {error.strerror}") from error
    if start.startswith(UTF_16_MARKS):
        raise ConfigError(f"forget_set.path: {path} is UTF-16; save it as UTF-8")
    if not start.strip():
        raise ConfigError(f"forget_set.path: {path} names no image")


def check_label_table(config: Mapping[str, Any]) -> None:
    """Check that the table of a corruption that reads labels exists.

    Raises:
        ConfigError: If it does not.
    """
    node = config.get("corruption") or {}
    path = node.get("path")
    target = str(node.get("_target_"))
    if not target.startswith("unlearn.") or path is None or Path(str(path)).is_file():
        return
    raise ConfigError(f"corruption.path must be a file, got {path}, which does not exist")


def check_class_folders(config: Mapping[str, Any]) -> None:
    """Check that no class folder of a folder of images is empty.

    Raises:
        ConfigError: If one is; names it.
    """
    dataset = config.get("dataset") or {}
    if not str(dataset.get("_target_")).endswith(".ImageFolder"):
        return
    root = Path(str(dataset.get("root")))
    try:
        top = find_layout(root).train
        names = list_classes(top)
        empty = [name for name in names if not any((top / name).iterdir())]
    except (ValueError, OSError):
        return  # reported where the folder is read
    if empty and len(empty) < len(names):
        named = ", ".join(str(top / name) for name in empty[:3])
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise ConfigError(
            f"dataset.root: empty class folder: {named}{more}; "
            "add images or remove the folder (class_order names the classes of the model)"
        )


def check_localization(config: Mapping[str, Any]) -> None:
    """Check that localization, budget and method fit together.

    Raises:
        ConfigError: If they do not.
    """
    if "method" not in config:
        return
    node, method = config.get("localization"), config["method"] or {}
    target = method.get("_target_")
    inside = read_class_flag(target, "has_localization") is True
    budget = config.get("budget")
    set_options = [
        key
        for key in ("budget", "mask_batch_norm", "mask_head", "mask_trainable")
        if config.get(key) is not None
    ]
    if node is None:
        own = str(target).startswith("unlearn.") and not inside
        if own and set_options:
            raise ConfigError(
                f"{set_options[0]} needs a localization, such as localization=salloc; "
                f"got {set_options[0]}={config[set_options[0]]} without one"
            )
        return
    name = (config.get("names") or {}).get("method", str(target).rpartition(".")[2])
    if inside:
        raise ConfigError(
            f"method={name} has its own localization; use method=rft with localization=..."
        )
    localizable = read_class_flag(target, "localizable")
    if localizable is None and str(target).startswith("unlearn.methods."):
        raise ConfigError(
            f"method={name} runs other methods; set the localization of those instead"
        )
    if localizable is False:
        raise ConfigError(
            f"method={name} changes the network's shape, so it cannot be localized; "
            "leave out localization, or choose another method"
        )
    if budget is None and _needs_budget(node):
        raise ConfigError(
            f"budget is missing: localization={config.get('localization_name')} needs the fraction "
            "of the parameters to train, in (0, 1]: budget=0.1"
        )
    path = node.get("path")
    if str(node.get("_target_")).endswith(".from_file.Saved") and not Path(str(path)).is_file():
        raise ConfigError(f"localization.path must be a file with a mask, got {path}")


def _needs_budget(node: Mapping[str, Any]) -> bool:
    if "num_layers" in node:  # a number of layers in place of a budget
        return node["num_layers"] is None
    return read_class_flag(node.get("_target_"), "needs_budget") is True


def check_devices(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check that several devices are used with ``trainer=ddp`` only.

    Raises:
        ConfigError: If the trainer's own default is one device and more are set.
    """
    devices = (config.get("trainer") or {}).get("devices", 1)
    usual = (defaults.get("trainer") or {}).get("devices")
    if usual == 1 and devices != 1:
        raise ConfigError(
            f"trainer.devices={devices} needs several processes: trainer=ddp "
            f"trainer.devices={devices}"
        )


def check_known_keys(config: Mapping[str, Any], schema: Any, prefix: str = "") -> None:
    """Check that a config holds no key that its schema lacks, as ``+key=value`` could add.

    Args:
        config: The resolved config, or a part of it.
        schema: Dataclass of the part.
        prefix: Dotted path of the part, with a dot at its end.

    Raises:
        ConfigError: At the first unknown key.
    """
    fields = {field.name: field.type for field in dataclasses.fields(schema)}
    for key, value in config.items():
        if key not in fields:
            raise ConfigError(f"unknown key '{prefix}{key}'{suggest_names(key, sorted(fields))}")
        if dataclasses.is_dataclass(fields[key]) and isinstance(value, Mapping):
            check_known_keys(value, fields[key], f"{prefix}{key}.")


def check_hub(config: Mapping[str, Any]) -> None:
    """Check that a model that is to be published can be.

    Raises:
        ConfigError: If a package is missing, or the model is not saved.
    """
    target = config.get("hub")
    if target is None:
        return
    if not config.get("save_model"):
        raise ConfigError(f"hub={target} needs save_model=true")
    local = str(target).startswith((".", "/", "~"))
    for package in ("safetensors", *(() if local else ("huggingface_hub",))):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"hub={target} needs {package}: pip install 'unlearn-bench[hub]'")


def check_loggers(config: Mapping[str, Any]) -> None:
    """Check that the packages of the loggers are installed.

    Raises:
        ConfigError: At the first that is not.
    """
    for name, node in (config.get("logger") or {}).items():
        package = LOGGER_PACKAGES.get(name) if node else None
        if package is not None and importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"logger={name} needs {package}: pip install 'unlearn-bench[{package}]'"
            )


def check_trusted_set(config: Mapping[str, Any]) -> None:
    """Check that a method that needs a trusted set, itself or in a part of it, gets one.

    Raises:
        ConfigError: If there is none.
    """
    node = config.get("method")
    if node is None or config.get("trusted") is not None or not _needs_trusted(node):
        return
    name = (config.get("names") or {}).get("method", str(node.get("_target_")).rpartition(".")[2])
    raise ConfigError(
        f"method={name} needs a trusted set, images known to be right: trusted={TRUSTED_SOURCES}"
    )


def check_dashboard(config: Mapping[str, Any]) -> None:
    """Check that a dashboard of W&B is asked for with the logger of W&B.

    Raises:
        ConfigError: If it is not.
    """
    if config.get("dashboard") and not (config.get("logger") or {}).get("wandb"):
        raise ConfigError("dashboard=true needs logger=wandb, whose project and entity it uses")


def _needs_trusted(node: Any) -> bool:
    """Return whether the node of a method, or one within it, needs a trusted set."""
    if not isinstance(node, Mapping) or str(node.get("_target_")).endswith(".auto.Auto"):
        return False  # auto refuses such candidates by name
    if read_class_flag(node.get("_target_"), "needs_trusted") or node.get("source") == "trusted":
        return True
    return any(_needs_trusted(part) for part in node.values())
