"""What a user's checkpoint implies: its input, given or known, and how it is trained again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearn.core.errors import ConfigError

OWN_IMAGES = ("imagefolder", "csv", "huggingface")
"""Data sets whose default scale and size are those of other images."""

KEYS = ("mean", "std", "image_size")
CARDS = ("card.json", "config.json")
TIMM_INPUT = "'${timm_input:%s}'"


def add_checkpoint_input(argv: Sequence[str]) -> list[str]:
    """Return the command line with the input that is known of a checkpoint, where it is not given.

    Known is that of networks of timm, from their data config, and that of healed models, from the
    card beside the file.

    Raises:
        ConfigError: If mean, deviation or size of the user's images are neither given nor known.
    """
    given = _read_words(argv)
    missing = [key for key in KEYS if f"dataset.{key}" not in given]
    model = given.get("model", "")
    elsewhere = "experiment" in given or any(word.startswith("--config") for word in argv)
    if given.get("dataset") not in OWN_IMAGES or model == "timm_pretrained" or not missing:
        return list(argv)
    known = _read_card(Path(given["checkpoint"]))
    if model == "timm":
        known = {key: TIMM_INPUT % key for key in KEYS} | known
    added = [f"dataset.{key}={known[key]}" for key in missing if key in known]
    unknown = [f"dataset.{key}" for key in missing if key not in known]
    if unknown and not elsewhere:
        raise ConfigError(
            f"checkpoint needs the input that it was trained on: {', '.join(unknown)} not given; mean "
            "and std are of images in [0, 1], without normalization dataset.mean=[0,0,0] "
            "dataset.std=[1,1,1]"
        )
    return [*argv, *added]


FINE_TUNING = {"epochs": "6", "batch_size": "32", "optimizer.lr": "0.01"}
"""Recipe of trainings that start from given weights, assumed unless one is given."""

GIVEN_ELSEWHERE = ("experiment", "method_defaults", "pretraining_defaults")


def add_training_defaults(argv: Sequence[str]) -> list[str]:
    """Return the command line of a user's model with the recipe and the budgets that it implies.

    A model that began from given weights is trained again by fine-tuning; default budgets are fitted
    to the data unless the user gives epochs or batches.
    """
    given = _read_words(argv)
    if any(key.partition("@")[0] in GIVEN_ELSEWHERE for key in given):
        return list(argv)
    added = []
    began = given.get("init", "null") != "null" or "timm_pretrained" in given.get("model", "")
    began |= given.get("model.pretrained", "false").lower() == "true"
    if began and not any(key.startswith("pretraining") for key in given):
        added = [f"pretraining.{key}={value}" for key, value in FINE_TUNING.items()]
    if "fit_budget" not in given:
        fixed = "method.epochs" in given or "method.batch_size" in given
        added.append(f"fit_budget={str(not fixed).lower()}")
    return [*argv, *added]


def _read_words(argv: Sequence[str]) -> dict[str, str]:
    """Return the value of each option of a command line."""
    parts = [word.partition("=") for word in argv if "=" in word]
    return {key: value for key, _, value in parts}


def _read_card(checkpoint: Path) -> dict[str, str]:
    """Return the input in the card of a healed model, as values of the command line; {} without."""
    for name in CARDS:
        try:
            card: Any = json.loads((checkpoint.parent / name).read_text(encoding="utf-8"))
            if card["file"] == checkpoint.name:
                found = card["input"]
                return {k: json.dumps(found[k]) for k in KEYS if found.get(k) is not None}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return {}
