"""Which row files count, and what becomes of the others."""

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from unlearn.storage import row_files
from unlearn.storage.record import RunRecord
from unlearn.storage.results_store import ResultsStore

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = "aaaaaa-1"


def record(run_id: str = RUN, step: int = 0, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "names": {"method": "rem"}, "config": {"seed": 0}, "metrics": {"healed": 0.5},
        "status": "ok", "reason": None, "seconds": 1.0, "peak_bytes": 1, "versions": {},
        "revision": None, "created": "",
    }  # fmt: skip
    return RunRecord(run_id=run_id, step=step, **(values | changes))


def changed(text: bytes, **columns: Any) -> bytes:
    return json.dumps(json.loads(text) | columns).encode()


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "torn": (lambda text: text[:100], "it is not JSON"),
    "empty": (lambda text: b"", "it is empty"),
    "binary": (lambda text: b"\x80\xff\0\x01", "it is not text"),
    "no object": (lambda text: b"[1]", "it is not a JSON object"),
    "nested": (lambda text: b"[" * 100_000, "it is not JSON"),
    "of another run": (lambda text: changed(text, run_id="bbbbbb-1"), "it is of run bbbbbb-1"),
    "of another step": (lambda text: changed(text, step=1), "it is of run aaaaaa-1, step 1"),
    "one digit": (lambda text: text.replace(b'"healed": 0.5', b'"healed": 0.7'), "its checksum"),
    "of no format": (lambda text: changed(text, format="x"), "its format is x"),
    "without status": (
        lambda text: b'{"run_id": "aaaaaa-1", "step": 0, "status": []}',
        "its status is",
    ),
}


@pytest.fixture(params=DAMAGE)
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ResultsStore, bytes, str]:
    """Return a store whose row file is broken, the content of that file, and what is wrong."""
    store = ResultsStore(tmp_path)
    store.write(record())
    store.write(record("cccccc-1"))
    change, why = DAMAGE[request.param]
    path = tmp_path / RUN / "row-0.json"
    content = change(path.read_bytes())
    assert content != path.read_bytes()
    path.write_bytes(content)
    return store, content, why


def test_a_broken_row_is_kept_under_another_name_and_restored_from_its_line(
    broken: tuple[ResultsStore, bytes, str], caplog: pytest.LogCaptureFixture
):
    store, content, why = broken
    folder, mirror = store.root / RUN, store.mirror.read_bytes()
    assert row_files.read_row(folder) == record().to_row()
    assert {p.name for p in folder.iterdir()} == {"row-0.json", "row-0.json.broken"}
    assert (folder / "row-0.json.broken").read_bytes() == content
    (line,) = caplog.messages
    assert str(folder / "row-0.json") in line and why in line and "\n" not in line
    assert "renamed to row-0.json.broken; restored from results.jsonl" in line
    assert store.load()["run_id"].tolist() == [RUN, "cccccc-1"]
    assert store.mirror.read_bytes() == mirror


def test_tables_do_not_drop_the_last_copy_of_a_row(broken: tuple[ResultsStore, bytes, str]):
    store, _, _ = broken
    mirror = store.mirror.read_bytes()
    store.mirror.write_bytes(mirror + b'{"run_id": "torn')  # is rebuilt
    assert store.load()["healed"].tolist() == [0.5, 0.5]
    assert store.mirror.read_bytes() == mirror


def test_a_broken_row_without_a_line_is_missing_and_may_be_recorded_again(
    broken: tuple[ResultsStore, bytes, str], caplog: pytest.LogCaptureFixture
):
    store, content, why = broken
    store.mirror.unlink()
    folder = store.root / RUN
    assert row_files.read_row(folder) is None and not store.is_recorded(RUN)
    (line,) = caplog.messages
    assert why in line and "the same command runs it again" in line
    store.write(record(metrics={"healed": 0.75}))
    assert store.load()["healed"].tolist() == [0.75, 0.5]
    assert (folder / "row-0.json.broken").read_bytes() == content


def test_a_broken_line_restores_nothing(broken: tuple[ResultsStore, bytes, str]):
    store, _, _ = broken
    store.mirror.write_text(store.mirror.read_text().replace('"healed": 0.5', '"healed": 0.9'))
    assert store.read_rows(RUN) == []
    assert store.load()["run_id"].tolist() == ["cccccc-1"]


def test_writing_over_a_broken_row_keeps_it(tmp_path: Path):
    store = ResultsStore(tmp_path)
    path = tmp_path / RUN / "row-0.json"
    for number, name in enumerate(("broken", "broken-2", "broken-3")):
        store.write(record())
        path.write_text(f"torn {number}")
        store.write(record())
        assert (path.parent / f"row-0.json.{name}").read_text() == f"torn {number}"
    assert store.load()["run_id"].tolist() == [RUN]


def test_rows_of_older_versions_count(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store = ResultsStore(tmp_path)
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / "row-0.json").write_text(json.dumps(record().to_row()))
    assert store.is_recorded(RUN) and store.load().to_dict("records") == [record().to_row()]
    assert store.mirror.read_text() == json.dumps(record().to_row()) + "\n"
    assert not caplog.messages


def test_a_row_has_format_and_checksum_on_disk_alone(tmp_path: Path):
    store = ResultsStore(tmp_path)
    store.write(record())
    stored = json.loads((tmp_path / RUN / "row-0.json").read_text())
    assert stored["format"] == 1 and stored == row_files.seal_row(record().to_row())
    assert json.loads(store.mirror.read_text()) == stored
    assert {"format", "sha256"}.isdisjoint(store.load().columns)
    with pytest.raises(ValueError, match="metrics must not be named sha256"):
        record(metrics={"sha256": 1.0})


def test_an_absent_row_is_restored_unless_its_folder_was_removed(tmp_path: Path):
    store = ResultsStore(tmp_path)
    for run_id in (RUN, "bbbbbb-1"):
        for step in (1, 0):
            store.write(record(run_id, step))
    mirror = store.mirror.read_text()
    (tmp_path / RUN / "forget_set.json").touch()  # the run had come to its end
    for step in range(2):
        (tmp_path / RUN / f"row-{step}.json").unlink()
    assert store.is_recorded(RUN, steps=2)
    shutil.rmtree(tmp_path / "bbbbbb-1")
    assert not store.is_recorded("bbbbbb-1")
    (tmp_path / "bbbbbb-1").mkdir()  # the run starts again
    assert not store.is_recorded("bbbbbb-1")
    assert store.load()["step"].tolist() == [0, 1]
    kept = [line for line in mirror.splitlines() if RUN in line]
    assert sorted(store.mirror.read_text().splitlines()) == sorted(kept)


READER = """
import sys
from pathlib import Path
from unlearn.storage.results_store import ResultsStore
print("ready", flush=True)
sys.stdin.readline()
print(len(ResultsStore(Path(sys.argv[1])).load()), flush=True)
"""


def test_several_readers_rename_and_restore_each_row_once(tmp_path: Path):
    store = ResultsStore(tmp_path)
    names = [f"{number:06d}-run" for number in range(20)]
    for name in names:
        store.write(record(name))
        (tmp_path / name / "row-0.json").write_text("torn")
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", READER, str(tmp_path)]
    readers = [
        subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=pipe, stdout=pipe, stderr=pipe)
        for _ in range(4)
    ]
    for reader in readers:
        assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("\n")
        reader.stdin.flush()
    ended = [reader.communicate(timeout=60) for reader in readers]
    assert [output for output, _ in ended] == ["20\n"] * 4, ended
    assert sum(lines.count("renamed to row-0.json.broken;") for _, lines in ended) == 20
    found = sorted(p.name for name in names for p in (tmp_path / name).iterdir())
    assert found == ["row-0.json"] * 20 + ["row-0.json.broken"] * 20


def test_a_long_wait_for_the_lock_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(row_files, "NOTICE_SECONDS", 0.1)
    held, told = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(tmp_path / row_files.LOCK):
            held.set()
            told.wait(60)

    class Notice(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    log, handler = logging.getLogger("unlearn.storage.row_files"), Notice()
    log.addHandler(handler)
    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    try:
        ResultsStore(tmp_path).write(record())
    finally:
        told.set()
        other.join()
        log.removeHandler(handler)
    (line,) = caplog.messages
    assert f"waits for another process to release {tmp_path / '.results.lock'}" in line
    assert line.startswith("process ") and line.endswith(f"to record run {RUN}")
    assert ResultsStore(tmp_path).is_recorded(RUN)


def test_a_row_of_a_later_version_does_not_count_and_is_not_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = ResultsStore(tmp_path)
    store.write(record())
    store.mirror.unlink()
    path = tmp_path / RUN / "row-0.json"
    content = changed(path.read_bytes(), format=2)
    path.write_bytes(content)
    assert row_files.read_row(path.parent) is None and not store.is_recorded(RUN)
    assert path.read_bytes() == content and [p.name for p in path.parent.iterdir()] == [path.name]
    assert "does not count: its format is 2, this version reads 1" in caplog.text
