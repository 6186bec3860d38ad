"""One row of results."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Value = float | int | bool | str | None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What one unlearning left behind.

    Attributes:
        run_id: Hash of the resolved config.
        step: Number of the request, 0 unless several follow one another.
        names: What the choices are called: dataset, corruption, model, pretraining, method.
        config: The resolved config.
        metrics: Columns of the evaluation; accuracies are fractions in [0, 1].
        status: "ok", or "collapsed": the loss was lost or the model fell to chance.
        reason: Why it is not ok.
        seconds: Of the unlearning alone.
        peak_bytes: Most memory in use.
        versions: By package.
        revision: Git revision, if there is one.
        created: ISO time.
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

    def flat(self) -> dict[str, Value]:
        """Return one flat row of JSON values; NaN and infinity become None."""
        row: dict[str, Any] = {"run_id": self.run_id, "step": self.step, **self.names}
        row |= {key: self.config.get(key) for key in ("discovery", "corrupted", "seed")}
        row |= {"status": self.status, "reason": self.reason, "seconds": self.seconds}
        row |= self.metrics
        row |= {"peak_bytes": self.peak_bytes, "revision": self.revision, "created": self.created}
        row |= leaves(self.config, "config/")
        row |= {f"versions/{k}": v for k, v in self.versions.items()}
        return {k: plain(v) for k, v in row.items()}


def leaves(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the leaves of a nested mapping by dotted path; lists count as leaves."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            out |= leaves(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def plain(value: Any) -> Any:
    """Return a JSON value: no NaN, no infinity, lists as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, list | tuple) else value
