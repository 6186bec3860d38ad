import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from wandb.proto import wandb_internal_pb2

from unlearn.reporting import canvas, plots, wandb

BLOCK = 32768  # the file is a LevelDB log: blocks of parts, each with checksum, length and kind
WHOLE, LAST = 1, 4  # kinds of parts that end a record


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
        if kind in (WHOLE, LAST):
            yield record
            record = b""


def logged(folder: Path, seconds: float = 20) -> dict[str, dict]:
    """Return what a real offline run recorded, by key; W&B's service may still be writing it."""
    end = time.monotonic() + seconds
    while not (found := _logged(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def _logged(folder: Path) -> dict[str, dict]:
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, dict] = {}
    for data in records(path.read_bytes()):
        for item in wandb_internal_pb2.Record.FromString(data).history.item:
            key, *inner = item.nested_key
            if inner:
                found.setdefault(key, {})[inner[0]] = json.loads(item.value_json)
    return found


def test_tables_and_figures_are_in_the_offline_run(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("WANDB_MODE", "offline")
    from unlearn.reporting import comparisons, tables

    png, _ = canvas.save(plots.comparison(rows), tmp_path / "comparison")
    wandb.mirror(
        {"summary": tables.overview(rows), "tests": comparisons.significance(rows)},
        {"comparison": png},
        folder=tmp_path,
        run_id="s0123456789ab",
        options={"project": "unlearn", "entity": None},
    )
    found = logged(tmp_path)
    kinds = {key: value["_type"] for key, value in found.items()}
    assert kinds == {
        "tables/summary": "table-file",
        "tables/tests": "table-file",
        "figures/comparison": "image-file",
    }
    (run,) = tmp_path.glob("wandb/offline-run-*")
    assert run.name.endswith("s0123456789ab")
    table = json.loads((run / "files" / found["tables/summary"]["path"]).read_text())
    assert table["columns"][:2] == ["method", "n"] and [r[0] for r in table["data"]] == [
        "rem",
        "npo_fast",
    ]
    assert (run / "files" / found["figures/comparison"]["path"]).stat().st_size > 1000


def test_only_wandb_holds_tables():
    assert wandb.target(None) is None and wandb.target({"wandb": None}) is None
    node = {"_target_": "x", "project": "p", "entity": None}
    assert wandb.target({"wandb": node}) == {"project": "p", "entity": None}
    with pytest.raises(ValueError, match="got csv, tensorboard"):
        wandb.target({"wandb": node, "tensorboard": {"a": 1}, "csv": {"a": 1}})


def test_the_same_rows_have_the_same_id():
    one = wandb.summary_id(["a", "b"], {"by": ["method"]})
    assert one == wandb.summary_id(["b", "a"], {"by": ["method"]}) and len(one) == 13
    assert one != wandb.summary_id(["a"], {"by": ["method"]})
    assert one != wandb.summary_id(["a", "b"], {"by": ["dataset"]})
