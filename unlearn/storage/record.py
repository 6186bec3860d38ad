"""One row of results."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unlearn.core.job import get_discovery

Value = float | int | bool | str | None

SECRET = ("key", "token", "password", "secret")  # suffixes of keys whose values are not stored
STATUSES = ("ok", "collapsed", "failed")
SHORT = ("discovery", "corrupted", "seed")  # config values that get a column without a prefix
OWN = ("run_id", "step", *SHORT, "status", "reason", "seconds", "peak_bytes", "revision", "created")
FACTS = ("role", "uses_forget_set", "regularity", "access")  # of method and corruption
STORED = ("format", "sha256")  # columns of files, not of rows in memory
MIN_SECRET = 8  # characters; shorter values of variables occur by chance


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The recorded result of one unlearning.

    Attributes:
        run_id: Hash of the resolved config.
        step: Index of the request; 0 unless there are several successive ones.
        names: Display names of the choices: dataset, corruption, model, pretraining, method.
        config: The resolved config.
        metrics: Columns of the evaluation; accuracies are fractions in [0, 1].
        status: "ok"; "collapsed": NaN loss or accuracy at chance level; or "failed".
        reason: Reason if the status is not ok.
        seconds: Duration of the unlearning only.
        peak_bytes: Peak memory.
        versions: Versions by package.
        revision: Git revision, if there is one.
        created: ISO time.
        role: Role of the method in comparisons: "unlearning", "baseline", "reference" or, told all
            corrupted samples, "upper bound".
        uses_forget_set: Whether the method's result depends on the forget set.
        regularity: Level of the corruption's regularity, None if unknown.
        access: What the method had access to: forget, retain and trusted, joined by +.
        machine: What rounding depends on: cpu, instructions, device, threads, precision.
        data_digest: Hash of the data set's images and labels.

    Raises:
        ValueError: If the status is unknown, the step negative or a metric hides another column.
    """

    run_id: str
    step: int
    names: Mapping[str, str]
    config: Mapping[str, Any]
    metrics: Mapping[str, Value]
    status: str
    reason: str | None
    seconds: float
    peak_bytes: int
    versions: Mapping[str, str]
    revision: str | None
    created: str
    role: str = "unlearning"
    uses_forget_set: bool = True
    regularity: str | None = None
    access: str | None = None
    machine: Mapping[str, Value] = field(default_factory=dict)
    data_digest: str | None = None

    def __post_init__(self) -> None:
        """Check status, step and names of metrics."""
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, got '{self.status}'")
        if self.step < 0:
            raise ValueError(f"step must be 0 or more, got {self.step}")
        hidden = sorted(set(self.metrics) & {*OWN, *FACTS, *STORED, *self.names})
        if hidden:
            raise ValueError(f"metrics must not be named {', '.join(hidden)}: reserved columns")

    def to_row(self) -> dict[str, Value]:
        """Return one flat row of JSON values; NaN and infinity become None.

        Raises:
            ValueError: If a value is not a JSON value; names the column.
        """
        row: dict[str, Any] = {"run_id": self.run_id, "step": self.step, **self.names}
        config = {**self.config, "discovery": get_discovery(self.config)}
        row |= {key: config.get(key) for key in SHORT}
        row |= {key: getattr(self, key) for key in FACTS}
        row |= {"status": self.status, "reason": self.reason, "seconds": self.seconds}
        row |= self.metrics
        row |= {"peak_bytes": self.peak_bytes, "revision": self.revision, "created": self.created}
        row |= iterate_leaves(mask_environment_secrets(mask_secrets(config)), "config/")
        row |= {"data/digest": self.data_digest}
        row |= {f"machine/{k}": v for k, v in self.machine.items()}
        row |= {f"versions/{k}": v for k, v in self.versions.items()}
        return {column: _row_value(column, value) for column, value in row.items()}


def mask_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with secret values, recognized by their names, masked."""
    kept = {k: v for k, v in config.items() if not str(k).lower().endswith(SECRET)}
    return {k: mask_secrets(v) if isinstance(v, Mapping) else v for k, v in kept.items()}


def mask_environment_secrets(content: Any) -> Any:
    """Return JSON values in which ``***`` replaces secrets of the environment.

    These are the values, of at least ``MIN_SECRET`` characters, of variables whose names end in KEY,
    TOKEN, PASSWORD or SECRET; an interpolation such as ``${oc.env:SOME_TOKEN}`` puts them into a config.
    """
    secrets = {
        value
        for name, value in os.environ.items()
        if name.lower().endswith(SECRET) and len(value) >= MIN_SECRET
    }
    # Longer ones first: a secret may be part of another.
    return _mask_texts(content, sorted(secrets, key=len, reverse=True))


def _mask_texts(node: Any, secrets: Sequence[str]) -> Any:
    if isinstance(node, Mapping):
        return {key: _mask_texts(value, secrets) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_mask_texts(value, secrets) for value in node]
    if isinstance(node, str):
        for secret in secrets:
            node = node.replace(secret, "***")
    return node


def iterate_leaves(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the leaves of a nested mapping by dotted path; lists and empty mappings are leaves."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            out |= iterate_leaves(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def to_json_value(value: object) -> object:
    """Return a value as JSON: NaN and infinity as None, numpy's scalars as numbers.

    Raises:
        TypeError: If JSON has no such value.
    """
    scalar = getattr(value, "item", None)
    if scalar is not None and getattr(value, "ndim", None) == 0:  # of numpy or torch
        value = scalar()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): to_json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(v) for v in value]
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _row_value(column: str, value: object) -> Value:
    try:
        content = to_json_value(value)
    except TypeError as error:
        raise ValueError(f"column '{column}': {error}; a row holds numbers and text") from error
    if isinstance(content, list | dict):
        return json.dumps(content)
    assert content is None or isinstance(content, bool | int | float | str)
    return content
