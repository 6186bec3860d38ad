import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from wandb.proto import wandb_internal_pb2

COLUMNS = ["method", "corruption", "discovery", "seed", "status", "healed", "utility", "seconds"]
BLOCK = 32768  # W&B writes a LevelDB log: blocks of parts, each with checksum, length and kind


def made(*cells: tuple) -> pd.DataFrame:
    out = pd.DataFrame(list(cells), columns=COLUMNS)
    out["healed_utility"] = out["healed"] * out["utility"]
    return out


@pytest.fixture
def frame() -> Callable[..., pd.DataFrame]:
    return made


@pytest.fixture
def rows() -> pd.DataFrame:
    return made(
        ("npo_fast", "poison", 0.5, 0, "ok", 0.2, 1.0, 1.0),
        ("npo_fast", "poison", 0.5, 1, "ok", 0.4, 1.0, 2.0),
        ("npo_fast", "poison", 1.0, 0, "ok", 0.6, 1.0, 3.0),
        ("npo_fast", "poison", 1.0, 1, "ok", 0.4, 1.0, 6.0),
        ("rem", "poison", 0.5, 0, "ok", 0.8, 0.5, 2.0),
        ("rem", "poison", 0.5, 1, "ok", 0.9, 1.0, 2.0),
        ("rem", "poison", 1.0, 0, "ok", 1.0, 1.0, 2.0),
        ("rem", "poison", 1.0, 1, "ok", 1.0, 1.0, 2.0),
    )


@pytest.fixture
def wandb_run() -> Callable[[Path], dict[str, Any]]:
    return read


def read(folder: Path) -> dict[str, Any]:
    """Return what an offline run holds: about itself, config, history, summary, exit code."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    out: dict[str, Any] = {
        "config": {},
        "history": [],
        "summary": {},
        "artifacts": {},
        "files": path.parent,
    }
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            out["run"] = record.run
            out["config"] |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
        elif kind == "config":
            out["config"] |= {i.key: json.loads(i.value_json) for i in record.config.update}
        elif kind == "history":
            out["history"].append(history(record.history))
        elif kind == "summary":
            for item in record.summary.update:
                key = "/".join(item.nested_key or [item.key])
                out["summary"][key] = json.loads(item.value_json)
        elif kind == "artifact":
            made = record.artifact
            files = {e.path: e.local_path for e in made.manifest.contents}
            out["artifacts"][made.name] = (made.type, json.loads(made.metadata or "{}"), files)
        elif kind == "exit":
            out["exit"] = record.exit.exit_code
    return out


def history(step: Any) -> dict[str, Any]:
    """Return one step of a run's history."""
    row: dict[str, Any] = {}
    for item in step.item:
        key, *inner = item.nested_key or [item.key]
        value = json.loads(item.value_json)
        if inner:
            row.setdefault(key, {})[".".join(inner)] = value
        else:
            row[key] = value
    return row


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a W&B transaction log."""
    assert data[:4] == b":W&B"
    at, record = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # too short for a part: padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield record
            record = b""
