"""Allowed values of options: rules by the name of a leaf.

They apply to every group, including a user's own.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from unlearn.core.scale import SCALES


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: Any) -> bool:
    """Return whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


Rule = tuple[Callable[[Any], bool], str]

POSITIVE: Rule = (lambda v: is_number(v) and v > 0, "a number above 0")
NOT_NEGATIVE: Rule = (lambda v: is_number(v) and v >= 0, "a number of at least 0")
SHARE: Rule = (lambda v: is_number(v) and 0 <= v <= 1, "in [0, 1]")
SHARE_OR_AUTO: Rule = (
    lambda v: v == "auto" or (is_number(v) and 0 <= v <= 1),
    "in [0, 1], or auto",
)
POSITIVE_SHARE: Rule = (lambda v: is_number(v) and 0 < v <= 1, "in (0, 1]")
COUNT: Rule = (lambda v: is_integer(v) and v >= 1, "a whole number of at least 1")
COUNT_OR_NULL: Rule = (
    lambda v: v is None or (is_integer(v) and v >= 1),
    "a whole number of at least 1, or null",
)
FROM_ZERO: Rule = (lambda v: is_integer(v) and v >= 0, "a whole number of at least 0")


def one_of(*options: str) -> Rule:
    """Return the rule that a value must be one of the options."""
    return (lambda v: str(v).lower() in options, "one of " + ", ".join(options))


def null_or(*options: str) -> Rule:
    """Return the rule that a value must be null or one of the options."""
    return (lambda v: v is None or str(v) in options, f"null or one of {', '.join(options)}")


RULES: dict[str, Rule] = {
    "lr": POSITIVE,
    "momentum": (lambda v: is_number(v) and 0 <= v < 1, "in [0, 1)"),
    "weight_decay": NOT_NEGATIVE,
    "epochs": FROM_ZERO,
    "batch_size": COUNT,
    "width": COUNT,
    "depth": COUNT,
    "heads": COUNT,
    "patch_size": COUNT,
    "trigger_size": COUNT,
    "image_size": COUNT,
    "beta": POSITIVE,
    "gamma": SHARE_OR_AUTO,
    "retraining_epochs": COUNT,
    "alpha": NOT_NEGATIVE,
    "ce_weight": NOT_NEGATIVE,
    "temperature": POSITIVE,
    "k": (
        lambda v: is_integer(v) and (v == -1 or v >= 1),
        "-1 (all) or a whole number of at least 1",
    ),
    "msteps": FROM_ZERO,
    "max_passes": FROM_ZERO,
    "forget_batch_size": COUNT_OR_NULL,
    "density": SHARE,
    "lambda_": NOT_NEGATIVE,
    "rho": SHARE_OR_AUTO,
    "growth": (lambda v: is_number(v) and v > 1, "a number above 1"),
    "tries": COUNT,
    "seed": FROM_ZERO,
    "resized_crop": POSITIVE_SHARE,
    "color_jitter": (lambda v: is_number(v) and 0 <= v < 1, "in [0, 1)"),
    "decode": one_of("cpu", "device"),
    "devices": COUNT,
    "threads": COUNT_OR_NULL,
    "accelerator": one_of("auto", "cpu", "gpu"),
    "precision": one_of("auto", "32-true", "bf16-mixed", "16-mixed"),
    "unlearning_precision": one_of("32-true", "bf16-mixed", "16-mixed"),
    "progress": one_of("auto", "true", "false"),
    "checkpoint_seconds": NOT_NEGATIVE,
    "evaluation_batch_bytes": COUNT,
    "figure": one_of(
        "comparison",
        "corruptions",
        "demo",
        "heatmap",
        "winners",
        "regularity",
        "tradeoff",
        "worst",
        "redirection",
        "localization",
        "sequence",
        "closeness",
        "auto",
        "all",
        "none",
    ),
    "hub": (
        lambda v: v is None or bool(re.fullmatch(r"[./~].*|\w[\w.-]*/\w[\w.-]*", str(v))),
        "user/name on the Hugging Face Hub, or a folder such as ./name",
    ),
    "stack": (
        lambda v: str(v).lower() in ("auto", "off", "false") or (str(v).isdigit() and int(v) > 1),
        "auto, off, or how many models to train at once, 2 or more",
    ),
    "scale": one_of(*SCALES),
    "status": one_of("true", "false", "watch"),
    "budget": (lambda v: v is None or (is_number(v) and 0 < v <= 1), "in (0, 1]"),
    "mask_batch_norm": null_or("update", "freeze", "recalibrate"),
    "mask_head": null_or("always", "masked", "only"),
    "rewind_to": (
        lambda v: (is_integer(v) and v >= 1) or (isinstance(v, str) and v != ""),
        "initial, fresh, an epoch from 1 or a checkpoint file",
    ),
    "corner": one_of("top_left", "top_right", "bottom_left", "bottom_right"),
    "discovery": (
        lambda v: v is None or (is_number(v) and 0 < v <= 1),
        "in (0, 1]",
    ),
    "discovery_precision": (
        lambda v: v is None or (is_number(v) and 0 < v <= 1),
        "in (0, 1], or null",
    ),
    "validation": (
        lambda v: v is None or (is_number(v) and 0 < v < 1),
        "a share in (0, 1), or null",
    ),
    "trials": FROM_ZERO,
    "discoveries": (
        lambda v: isinstance(v, list) and v != [] and all(is_number(x) and 0 < x <= 1 for x in v),
        "a list of numbers in (0, 1]",
    ),
    "corruptions": (lambda v: isinstance(v, list) and v != [], "a list of at least one"),
    "corrupted": (
        lambda v: is_number(v) and (0 < v < 1 or (v >= 1 and v == int(v))),
        "a share in (0, 1) or a whole number of at least 1",
    ),
}


PATH_RULES: dict[str, Rule] = {
    "method.budget": (lambda v: v is None or POSITIVE[0](v), "a number above 0"),  # null: del's own
    "method.repair.share": POSITIVE_SHARE,
    "method.repair.shrink": POSITIVE_SHARE,
    "trainer.accumulate": COUNT,
}
"""Rules of options whose name another option has with another meaning."""


def get_rule(path: str) -> Rule | None:
    """Return the rule for a leaf by its dotted path."""
    leaf = path.rpartition(".")[2]
    if path.startswith("where."):  # columns of rows: a value, or a list of alternatives
        return None
    if path.startswith("seeds."):
        return FROM_ZERO
    if path in PATH_RULES:
        return PATH_RULES[path]
    if leaf in RULES:
        return RULES[leaf]
    if leaf.endswith(("_rate", "_fraction")):
        return SHARE
    return COUNT_OR_NULL if leaf.startswith("num_") else None
