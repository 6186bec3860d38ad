"""Reads a run's folder: curves, command line and error."""

import csv
import logging
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from unlearn.storage.record import to_json_value
from unlearn.storage.results_store import ResultsStore

log = logging.getLogger(__name__)

NAMES = ("dataset", "corruption", "model", "pretraining", "method")
FILES = {"m": "model.pt", "c": ".hydra/config.yaml", "l": "curves/metrics.csv"}
LOADER = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # libyaml if available, for thousands of files
POINTS = 24  # points of a learning curve, enough for a width of two inches
LOSS, HIDDEN, CORRUPTED = "train/loss", "/hidden_accuracy_given", "/corrupted_accuracy_given"


def shorten_value(value: object, digits: int) -> Any:
    """Return a value with the given significant digits; whole numbers without a point."""
    value = to_json_value(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.{digits}g}")
    return value


def read_curves(path: Path) -> dict[str, list[Any]]:
    """Return a run's thinned learning curves: epoch, loss, fraction of corrupted labels predicted.

    The fraction is over hidden corrupted samples, or over all corrupted ones if none are hidden.

    Returns:
        Lists of at most ``POINTS`` entries; empty without curves.
    """
    points: dict[float, dict[str, float]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                known = {k: float(v) for k, v in row.items() if k and v}
                points.setdefault(known.pop("epoch"), {}).update(known)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        log.warning("skipped broken curves %s (%s)", path, error)
        return {}
    columns = sorted({c for values in points.values() for c in values})
    ending = HIDDEN if any(c.endswith(HIDDEN) for c in columns) else CORRUPTED
    shown = [c for c in columns if c == LOSS or c.endswith(ending)]
    epochs = thin_values(
        sorted(e for e, values in points.items() if any(c in values for c in shown))
    )
    out: dict[str, list[Any]] = {"epoch": [shorten_value(e, 6) for e in epochs]} if shown else {}
    return out | {c: [shorten_value(points[e].get(c, math.nan), 3) for e in epochs] for c in shown}


def thin_values(values: Sequence[float], limit: int = POINTS) -> list[float]:
    """Return at most ``limit`` of the values, evenly spaced, including the first and the last."""
    if len(values) <= limit:
        return list(values)
    return [values[round(i * (len(values) - 1) / (limit - 1))] for i in range(limit)]


def read_command(folder: Path) -> str | None:
    """Return the command line that repeats a run; None if its overrides were not recorded."""
    overrides = _read_yaml(folder / ".hydra" / "overrides.yaml")
    if not isinstance(overrides, list):
        return None
    return shlex.join(["python", "unlearn.py", *map(str, overrides)])


def list_broken_runs(store: ResultsStore) -> list[dict[str, Any]]:
    """Return the failed runs, with a row for the map if hydra's files give the task."""
    out = []
    for run_id, reason in store.read_failures().items():
        folder = store.root / run_id
        config = _read_yaml(folder / ".hydra" / "config.yaml")
        hydra = _read_yaml(folder / ".hydra" / "hydra.yaml")
        run = {"id": run_id, "reason": reason, "command": read_command(folder), "row": None}
        if isinstance(config, dict) and isinstance(hydra, dict):
            choices = _read_choices(hydra)
            row = {name: choices.get(name) for name in NAMES}
            row |= {key: config.get(key) for key in ("discovery", "corrupted", "seed")}
            row |= {"run_id": run_id, "step": 0, "status": "failed", "reason": reason}
            run["row"] = row
        out.append(run)
    return out


def _read_choices(hydra: Any) -> dict[str, Any]:
    """Return the choices in hydra's own config; empty if the file is torn."""
    for key in ("hydra", "runtime", "choices"):
        hydra = hydra.get(key) if isinstance(hydra, dict) else None
    return hydra if isinstance(hydra, dict) else {}


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return None
