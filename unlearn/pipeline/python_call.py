"""The config of a call of the Python interface: that of a command line with its arguments."""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from unlearn.config.checkpoint_input import add_training_defaults
from unlearn.config.command_line import Arguments
from unlearn.config.composition import (
    check_jobs,
    compose_config,
    enable_composition,
    resolve_config,
)
from unlearn.config.registration import config_dir
from unlearn.pipeline.user_data import locate_data


def compose_call(
    retain: Any,
    method: str,
    options: Mapping[str, Any] | None,
    overrides: Sequence[str],
    seed: int,
    device: str,
    image_size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    begun: bool,
) -> dict[str, Any]:
    """Return the resolved and checked config of the call; ``begun``: initial weights are given."""
    data = {"image_size": image_size, "mean": mean, "std": std}
    kind, key = locate_data(retain)
    place = str(retain) if key == "path" else "handed_over"
    words = [
        f"method={method}",
        "corruption=none",
        "evaluation=change",
        f"dataset={kind}",
        f"dataset.{key}={json.dumps(place)}",
        "dataset.num_classes=2",  # known only from the data; not used by methods
        "forget_set=file",
        "forget_set.path=handed_over",
        "model=import",
        "model.path=handed:over",
        "logger=none",
        f"seed={seed}",
        f"trainer.accelerator={device}",
        "trainer.progress=false",
        *(f"dataset.{k}={json.dumps(v)}" for k, v in data.items() if v is not None),
        *(f"method.{k}={json.dumps(v)}" for k, v in (options or {}).items()),
        *overrides,
    ]
    marked = ["init=handed_over", *words] if begun else words
    words = [word for word in add_training_defaults(marked) if word != "init=handed_over"]
    text = _resolve_words(tuple(words), os.environ.get("UNLEARN_HOME"), os.getcwd())
    return json.loads(text)


@functools.lru_cache(maxsize=8)
def _resolve_words(words: tuple[str, ...], home: str | None, folder: str) -> str:
    """Return the resolved and checked config of a command line as JSON; cached, which takes seconds.

    Args:
        words: The command line.
        home: The variable that paths depend on, for the cache.
        folder: The working directory, likewise.
    """
    check_jobs("unlearn", Arguments(list(words), False, False, None, [config_dir()]), files=False)
    with enable_composition([config_dir()]):
        config = resolve_config(compose_config("unlearn", list(words), [config_dir()]))
    config.pop("tune")
    return json.dumps(config)
