"""Checks of a composed config, without heavy imports."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unlearn.config.constraints import get_rule, is_integer, is_number
from unlearn.core.errors import ConfigError
from unlearn.core.folder_layout import choose_classes, find_layout, list_classes
from unlearn.core.image_table import read_table


def iterate_leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of every leaf; lists count as leaves."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from iterate_leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def suggest_names(word: str, options: list[str]) -> str:
    """Return `` did you mean 'x'?`` for the nearest options, or an empty text."""
    near = difflib.get_close_matches(word, options, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def check_config(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check a resolved config.

    Args:
        config: The config with the user's values.
        defaults: The same choices without the user's values; gives the types.

    Raises:
        ConfigError: At the first wrong key, with its value and what is allowed.
    """
    usual = dict(iterate_leaves(defaults))
    check_nesting(config, defaults)
    for path, value in iterate_leaves(config):
        rule = get_rule(path)
        if value == "???":
            raise ConfigError(f"{path} is missing; give it on the command line: {path}=...")
        if rule is not None:
            if not rule[0](value):
                raise ConfigError(f"{path} must be {rule[1]}, got {_format_value(value)}")
        elif path in usual:
            check_type(path, value, usual[path])
    check_classes(config)
    check_discovery(config)
    check_sample_counts(config)
    check_checkpoint(config)


def check_checkpoint(config: Mapping[str, Any]) -> None:
    """Check the options that are used with a user's own checkpoint.

    Raises:
        ConfigError: If the file is absent, or another option needs a model trained here.
    """
    checkpoint, init = config.get("checkpoint"), config.get("init")
    if init is not None and not Path(init).is_file():
        raise ConfigError(f"init must be a file, got {init}, which does not exist")
    if init is not None and (config.get("pretraining") or {}).get("capacity", 1) != 1:
        raise ConfigError("init needs a pretraining without extra channels: pretraining=standard")
    if checkpoint is None:
        return
    if not Path(checkpoint).is_file():
        raise ConfigError(f"checkpoint must be a file, got {checkpoint}, which does not exist")
    if "method" not in config:
        return
    corruption = (config.get("chosen") or {}).get("corruption")
    if corruption not in (None, "none"):
        raise ConfigError(
            "corruption must be none with your own checkpoint, which was trained on the data as "
            f"they are, got {corruption}; leave it out"
        )
    if (config.get("chosen") or {}).get("trusted") == "held_out":
        raise ConfigError(
            "trusted=held_out takes images out of a training that happens here; with a checkpoint "
            "use trusted=folder, file or clean_rows"
        )
    if (config.get("tune") or {}).get("trials"):
        raise ConfigError(
            "tune.trials must be 0 with a checkpoint: trials need models that are trained "
            "here; tune without it and pass the result by --config-dir"
        )
    if (config.get("pretraining") or {}).get("capacity", 1) != 1:
        raise ConfigError(
            "pretraining must be standard with a checkpoint: the model is already trained"
        )


def check_nesting(config: Mapping[str, Any], usual: Mapping[str, Any], prefix: str = "") -> None:
    """Check that groups of options remain groups, and single values single values.

    Raises:
        ConfigError: At the first violation.
    """
    for key, value in config.items():
        path, before = f"{prefix}{key}", usual.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            check_nesting(value, before, f"{path}.")
        elif isinstance(before, Mapping):  # null disables a part: logger.csv=null
            if value is not None and value != "???":
                raise ConfigError(f"{path} must be a group of options, got {value}")
        elif isinstance(value, Mapping) and before is not None and before != "???":
            raise ConfigError(f"{path} must be a single value (as {before}), got {dict(value)}")


def check_type(path: str, value: Any, usual: Any) -> None:
    """Check that a value has the type of its default.

    Raises:
        ConfigError: If it is not.
    """
    if usual is None or usual == "???" or (value is None and not isinstance(usual, bool)):
        return  # a tuned default hides that null is allowed; check the constructor
    for kind, fits, text in (
        (bool, lambda v: isinstance(v, bool), "true or false"),
        (int, is_integer, "a whole number"),
        (float, is_number, "a number"),
        (str, lambda v: isinstance(v, str), "a word"),
        (list, lambda v: isinstance(v, list), "a list"),
    ):
        if isinstance(usual, kind):
            if not fits(value):
                raise ConfigError(
                    f"{path} must be {text} (as {_format_value(usual)}), got {_format_value(value)}"
                )
            return


def _format_value(value: Any) -> str:
    """Return a value in the syntax of the command line."""
    named = {"None": "null", "True": "true", "False": "false"}
    return named.get(str(value), str(value))


def count_classes(dataset: Mapping[str, Any]) -> int | None:
    """Return the number of classes if it is known without reading images."""
    if dataset.get("path") is not None and "root" in dataset:  # a table of images
        return _count_table_classes(dataset)
    if dataset.get("num_classes") is not None or "root" not in dataset:
        return dataset.get("num_classes")
    root = Path(str(dataset["root"]))
    if not root.is_dir():
        raise ConfigError(
            f"dataset.root must be a folder with one folder per class; {root} does not exist"
        )
    try:
        names = list_classes(find_layout(root).train)
        return len(choose_classes(names, dataset.get("classes")))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _count_table_classes(dataset: Mapping[str, Any]) -> int:
    """Return the number of classes of a table of images, checked also if it is given."""
    path = Path(str(dataset["path"]))
    root = path.parent if dataset["root"] is None else Path(str(dataset["root"]))
    try:
        names = read_table(path, root).class_names
        return len(choose_classes(names, dataset.get("classes")))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check_classes(config: Mapping[str, Any]) -> None:
    """Check that classes named in the config exist.

    Raises:
        ConfigError: If one does not.
    """
    k = count_classes(config.get("dataset") or {})
    corruption = config.get("corruption") or {}
    for key in ("target_class", "classes"):
        named = corruption.get(key)
        for c in named if isinstance(named, list) else [named]:
            if c is not None and (not is_integer(c) or c < 0 or (k is not None and c >= k)):
                allowed = f"in 0..{k - 1}" if k is not None else "a class number"
                raise ConfigError(f"corruption.{key} must be {allowed}, got {named}")
        if isinstance(named, list) and len(set(named)) < len(named):
            raise ConfigError(f"corruption.{key} must be different classes, got {named}")


def is_simulated(config: Mapping[str, Any]) -> bool:
    """Return whether discovery is simulated: only that forget set has the option ``nested``."""
    return "nested" in (config.get("forget_set") or {})


def check_discovery(config: Mapping[str, Any]) -> None:
    """Check that exactly one of discovery rate, detector and other forget set is given.

    Raises:
        ConfigError: If several or none are given.
    """
    chosen = config.get("chosen") or {}
    detector, forget_set = chosen.get("detector"), chosen.get("forget_set")
    rate, precision = config.get("discovery"), config.get("discovery_precision")
    if not config.get("forget_set") or config.get("advise"):  # advice also covers unknown values
        return
    if detector and forget_set:
        raise ConfigError(
            f"discovery={detector} and forget_set={forget_set} are both given; leave one out"
        )
    if rate is None and is_simulated(config):
        raise ConfigError("discovery must be a number in (0, 1], got null")
    if rate is not None and detector:
        raise ConfigError(
            f"discovery={rate} and a detector ({detector}) are both given; leave one out"
        )
    if precision is not None and not is_simulated(config):
        raise ConfigError(
            f"discovery_precision={precision} adds false alarms to a simulated discovery rate, "
            f"discovery=0.5; got {f'discovery={detector}' if detector else f'forget_set={forget_set}'}"
        )


def check_sample_counts(config: Mapping[str, Any]) -> None:
    """Check that there are enough samples to corrupt and find.

    Raises:
        ConfigError: If there are not.
    """
    size = (config.get("dataset") or {}).get("num_train")
    corrupted = config["corrupted"]
    clean = config["chosen"]["corruption"] == "none"
    if config.get("checkpoint") is not None and clean and is_simulated(config):
        raise ConfigError(
            "forget_set must list the bad images with your own checkpoint: "
            "forget_set=file forget_set.path=bad.csv, or use a detector: discovery=cleanlab"
        )
    if "method" in config and clean and is_simulated(config):
        raise ConfigError("corruption must not be none: a discovery rate needs corrupted samples")
    if size is None or clean:
        return
    count = round(corrupted * size) if corrupted < 1 else int(corrupted)
    if not 1 <= count <= size:
        raise ConfigError(
            f"corrupted must select 1..{size} of the {size} training images, got {corrupted}"
        )
    if config.get("discovery") is not None and round(config["discovery"] * count) < 1:
        raise ConfigError(
            f"discovery must find at least one of {count} corrupted samples, "
            f"got {config['discovery']}"
        )
