import json
import math
from typing import Any

import numpy as np
import pytest

from unlearn.storage.record import RunRecord, mask_environment_secrets

CONFIG: dict[str, Any] = {
    "discovery": 0.5,
    "corrupted": 0.05,
    "seed": 3,
    "dataset": {"mean": [0.5, 0.25], "augment": {"flip_rate": 0.0}},
    "logger": {},
    "experiment": None,
}


def record(**changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "run_id": "0123456789ab",
        "step": 0,
        "names": {"dataset": "digits", "method": "rem"},
        "config": CONFIG,
        "metrics": {"healed": 0.9, "images_seen": 7},
        "status": "ok",
        "reason": None,
        "seconds": 1.5,
        "peak_bytes": 10,
        "versions": {"torch": "2.11"},
        "revision": None,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return RunRecord(**(values | changes))


def test_the_rate_of_a_user_s_list_is_unknown():
    listed = {"_target_": "unlearn.data.forget_sets.from_file.FromFile", "path": "bad.csv"}
    row = record(config=CONFIG | {"forget_set": listed}).to_row()
    assert row["discovery"] is None
    assert row["config/discovery"] is None
    assert record().to_row()["discovery"] == 0.5


def test_a_row_is_flat():
    assert record().to_row() == {
        "run_id": "0123456789ab",
        "step": 0,
        "dataset": "digits",
        "method": "rem",
        "discovery": 0.5,
        "corrupted": 0.05,
        "seed": 3,
        "role": "unlearning",
        "uses_forget_set": True,
        "regularity": None,
        "access": None,
        "status": "ok",
        "reason": None,
        "seconds": 1.5,
        "healed": 0.9,
        "images_seen": 7,
        "peak_bytes": 10,
        "revision": None,
        "created": "2026-01-01T00:00:00+00:00",
        "config/discovery": 0.5,
        "config/corrupted": 0.05,
        "config/seed": 3,
        "config/dataset.mean": "[0.5, 0.25]",
        "config/dataset.augment.flip_rate": 0.0,
        "config/logger": "{}",
        "config/experiment": None,
        "data/digest": None,
        "versions/torch": "2.11",
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_no_number_becomes_null(value: float):
    row = record(metrics={"loss": value}, config={"betas": [0.9, value]}, seconds=value).to_row()
    assert row["loss"] is None and row["seconds"] is None
    assert row["config/betas"] == "[0.9, null]"
    json.dumps(row, allow_nan=False)


def test_scalars_of_numpy_become_plain():
    metrics: Any = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.float64(1)}
    row = record(metrics=metrics).to_row()
    assert [row[k] for k in "abcd"] == [0.5, 3, True, 1.0]
    assert [type(row[k]) for k in "abcd"] == [float, int, bool, float]


def test_what_json_does_not_know_is_refused_by_column():
    metrics: Any = {"curve": np.zeros(3)}
    with pytest.raises(ValueError, match="column 'curve': ndarray is not a JSON value"):
        record(metrics=metrics).to_row()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "fine"}, "status must be one of ok, collapsed, failed, got 'fine'"),
        ({"step": -1}, "step must be 0 or more, got -1"),
        ({"metrics": {"seed": 1, "x": 1}}, "metrics must not be named seed"),
        ({"metrics": {"method": 1}}, "metrics must not be named method"),
    ],
)
def test_a_bad_record_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        record(**changes)


def test_secrets_of_the_environment_are_masked_in_the_config(monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "WANDB_API_KEY": "0123456789", "some_token": "01234567", "DB_PASSWORD": "open sesame",
        "MY_SECRET": "short", "KEYBOARD": "qwertyuiop",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    config = {
        "seed": 0,
        "root": "https://me:open sesame@host/0123456789/01234567",
        "options": {"plain": "short qwertyuiop", "list": ["x01234567", 5, None]},
    }
    row = record(config=config).to_row()
    assert row["config/root"] == "https://me:***@host/***/***"
    assert row["config/options.plain"] == "short qwertyuiop"
    assert row["config/options.list"] == '["x***", 5, null]'
    assert config["options"]["list"][0] == "x01234567"
    assert mask_environment_secrets(config)["root"] == row["config/root"]
