import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from unlearn.storage.record import RunRecord
from unlearn.storage.results_store import ResultsStore

REPOSITORY = Path(__file__).resolve().parents[2]


def record(run_id: str = "aaaaaa-1", step: int = 0, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "names": {"method": "rem"},
        "config": {"seed": 0, "discovery": 0.5},
        "metrics": {"healed": 0.5},
        "status": "ok",
        "reason": None,
        "seconds": 1.0,
        "peak_bytes": 1,
        "versions": {},
        "revision": None,
        "created": "",
    }
    return RunRecord(run_id=run_id, step=step, **(values | changes))


def mirrored(store: ResultsStore) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in store.mirror.read_text().splitlines()]
    return sorted((row["run_id"], row["step"]) for row in rows)


def test_results_do_not_load_torch():
    code = "import sys, unlearn.storage.results_store; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_a_row_comes_back(tmp_path: Path):
    store = ResultsStore(tmp_path / "results")
    assert not store.is_recorded("aaaaaa-1")
    store.write(record())
    assert store.is_recorded("aaaaaa-1") and not store.is_recorded("aaaaaa-1", steps=2)
    assert store.read_rows("aaaaaa-1") == [record().to_row()]
    assert store.load().to_dict("records") == [record().to_row()]
    frame = pd.read_json(store.mirror, lines=True)
    assert frame["run_id"].tolist() == ["aaaaaa-1"] and frame["healed"].tolist() == [0.5]
    left = {p.name for p in store.root.rglob("*") if p.is_file()}
    assert left == {"row-0.json", "results.jsonl", ".results.lock"}


def test_ids_of_digits_alone_stay_text(tmp_path: Path):
    store = ResultsStore(tmp_path)
    store.write(record("012345678901"))
    frame = pd.read_json(store.mirror, lines=True, dtype=False)
    assert frame["run_id"].tolist() == ["012345678901"]


def test_other_files_of_a_run_are_left_alone(tmp_path: Path):
    folder = tmp_path / "aaaaaa-1"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "curves.csv").write_text("epoch\n")
    store = ResultsStore(tmp_path)
    store.write(record())
    assert (folder / "curves.csv").read_text() == "epoch\n" and len(store.load()) == 1


def test_steps_are_in_order(tmp_path: Path):
    store = ResultsStore(tmp_path)
    for step in (10, 2, 0, 1):
        store.write(record(step=step))
    assert [row["step"] for row in store.read_rows("aaaaaa-1")] == [0, 1, 2, 10]
    assert store.is_recorded("aaaaaa-1", steps=3) and not store.is_recorded("aaaaaa-1", steps=4)


@pytest.mark.parametrize("run_id", ["../outside", "short", "UPPERCASE", "a" * 65, "aaaaaa\n", ""])
def test_an_id_cannot_leave_the_root(tmp_path: Path, run_id: str):
    store = ResultsStore(tmp_path / "results")
    for call in (
        store.run_folder,
        store.is_recorded,
        store.read_rows,
        lambda i: store.write_failure(i, ""),
    ):
        with pytest.raises(ValueError, match="run_id must match"):
            call(run_id)
    with pytest.raises(ValueError, match="run_id must match"):
        store.write(record(run_id))
    assert not (tmp_path / "outside").exists()


def test_running_again_replaces_the_row(tmp_path: Path):
    store = ResultsStore(tmp_path)
    store.write(record())
    store.write(record("bbbbbb-1"))
    store.write(record(metrics={"healed": 0.75}))
    frame = pd.read_json(store.mirror, lines=True)
    assert sorted(frame["healed"]) == [0.5, 0.75]


def test_a_run_removed_by_hand_and_repeated_is_not_doubled(tmp_path: Path):
    store = ResultsStore(tmp_path)
    store.write(record())
    shutil.rmtree(tmp_path / "aaaaaa-1")
    store.write(record(metrics={"healed": 0.75}))
    assert pd.read_json(store.mirror, lines=True)["healed"].tolist() == [0.75]


def test_a_run_whose_id_begins_alike_is_another(tmp_path: Path):
    store = ResultsStore(tmp_path)
    for step in (1, 10, 11):
        store.write(record(step=step))
    store.write(record("aaaaaa-11", step=1))
    assert len(mirrored(store)) == 4


def damage(store: ResultsStore, kind: str) -> None:
    text = store.mirror.read_text()
    lines = text.splitlines(keepends=True)
    broken = {
        "torn": text + lines[0][:40],
        "lost": lines[0],
        "doubled": text + lines[0],
        "changed": text.replace('"healed": 0.5', '"healed": 0.1'),
        "foreign": text + "[1]\n",
        "empty": "",
    }
    if kind == "absent":
        store.mirror.unlink()
    else:
        store.mirror.write_text(broken[kind])


@pytest.mark.parametrize(
    "kind", ["torn", "lost", "doubled", "changed", "foreign", "empty", "absent"]
)
def test_load_mends_the_mirror(tmp_path: Path, kind: str):
    store = ResultsStore(tmp_path)
    store.write(record())
    store.write(record("bbbbbb-1"))
    whole = store.mirror.read_text()
    damage(store, kind)
    assert len(store.load()) == 2
    assert store.mirror.read_text() == whole


def test_a_mirror_that_agrees_is_not_written_again(tmp_path: Path):
    store = ResultsStore(tmp_path)
    store.write(record("bbbbbb-1"))
    store.write(record())
    before = store.mirror.stat()
    store.load()
    assert store.mirror.stat().st_ino == before.st_ino


def test_the_next_row_mends_a_torn_line(tmp_path: Path):
    store = ResultsStore(tmp_path)
    store.write(record())
    damage(store, "torn")
    store.write(record("bbbbbb-1"))
    assert mirrored(store) == [("aaaaaa-1", 0), ("bbbbbb-1", 0)]


def test_load_follows_removed_folders(tmp_path: Path):
    store = ResultsStore(tmp_path)
    store.write(record())
    shutil.rmtree(tmp_path / "aaaaaa-1")
    assert store.load(method="rem").empty
    assert store.mirror.read_text() == ""


def test_loading_nothing_makes_nothing(tmp_path: Path):
    store = ResultsStore(tmp_path / "results")
    assert store.load().empty and store.read_failures() == {} and not store.root.exists()


@pytest.mark.parametrize("content", ["", '{"run_id": "aaa', "[1]", "null", '{"run_id": "x"}', "\0"])
def test_a_broken_row_is_named(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture):
    store = ResultsStore(tmp_path)
    store.write(record())
    store.write(record("bbbbbb-1"))
    path = tmp_path / "aaaaaa-1" / "row-0.json"
    path.write_text(content)
    store.mirror.write_text(store.mirror.read_text().partition("\n")[2])  # no line restores it
    with caplog.at_level(logging.WARNING):
        assert store.load()["run_id"].tolist() == ["bbbbbb-1"]
    assert str(path) in caplog.text
    assert not store.is_recorded("aaaaaa-1")
    store.write(record())
    assert len(store.load()) == len(mirrored(store)) == 2


def test_a_copied_folder_is_not_another_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store = ResultsStore(tmp_path)
    store.write(record())
    shutil.copytree(tmp_path / "aaaaaa-1", tmp_path / "aaaaaa-1-copy")
    assert len(store.load()) == 1
    assert "aaaaaa-1-copy" in caplog.text


def test_half_written_files_are_not_rows(tmp_path: Path):
    store = ResultsStore(tmp_path)
    store.write(record())
    (tmp_path / "aaaaaa-1" / ".row-1.json.part").write_text('{"run')
    (tmp_path / "aaaaaa-1" / "row-1.json.part").write_text('{"run')
    assert len(store.load()) == 1 and len(store.read_rows("aaaaaa-1")) == 1


def test_rows_are_chosen_by_column(tmp_path: Path):
    store = ResultsStore(tmp_path)
    for i, method in enumerate(("rem", "npo", "rem")):
        config = {"seed": i, "discovery": 0.5 if i else 1.0}
        reason = "lost" if i else None
        store.write(record(f"aaaaaa-{i}", names={"method": method}, config=config, reason=reason))
    assert store.load(method="rem")["seed"].tolist() == [0, 2]
    assert store.load(method="rem", discovery=0.5)["seed"].tolist() == [2]
    assert store.load(seed=[0, 1])["seed"].tolist() == [0, 1]
    assert store.load(reason=None)["seed"].tolist() == [0]
    assert store.load(reason=[None, "lost"])["seed"].tolist() == [0, 1, 2]
    assert store.load(**{"config/seed": 1}).index.tolist() == [0]
    with pytest.raises(ValueError, match=r"no column 'metod' in the results of .*: method"):
        store.load(metod="rem")


def test_a_crash_is_kept_until_a_success(tmp_path: Path):
    store = ResultsStore(tmp_path)
    path = store.write_failure("aaaaaa-1", "Traceback\n  here\nKeyError: 'x'\n")
    store.write_failure("bbbbbb-1", "")
    assert path.name == "error.txt"
    assert store.read_failures() == {"aaaaaa-1": "KeyError: 'x'", "bbbbbb-1": "no traceback"}
    assert not store.is_recorded("aaaaaa-1")
    store.write(record())
    assert list(store.read_failures()) == ["bbbbbb-1"]


def test_rows_of_an_older_id_format_stay_in_tables_and_are_named(tmp_path, caplog):
    store = ResultsStore(tmp_path)
    ids = {"r0123456789ab", "r2-0123456789ab", "r3-0123456789ab"}
    for run_id in sorted(ids):
        store.write(record(run_id=run_id))
    assert set(store.load()["run_id"]) == ids
    assert "ids of an older format (2)" in caplog.text
