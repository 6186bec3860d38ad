"""Stores that may only be read: tables, states and plans work, and nothing is changed."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DROP_FROM_BOUNDING_SET, MAY_WRITE_ALL, MAY_READ_ALL = 24, 1, 2  # of prctl and capabilities


def respect_permissions() -> None:
    """Let root write only where the permissions allow it, from the next program on."""
    for capability in (MAY_WRITE_ALL, MAY_READ_ALL):
        ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


def call(home: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"UNLEARN_HOME": str(home / "outputs"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, f"{command}.py", *arguments],
        cwd=REPOSITORY, env=variables, capture_output=True, text=True, timeout=240,
        preexec_fn=respect_permissions, check=False,
    )  # fmt: skip


def protect(folder: Path) -> None:
    """Take the permission to write from all files and folders."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    tried = subprocess.run(
        ["touch", str(folder / "tried")], preexec_fn=respect_permissions, capture_output=True
    )
    if tried.returncode == 0:
        pytest.skip("root's right to write everywhere cannot be given up here")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_read_only_store_is_read(
    nursery: Any, store: Any, small: tuple[str, ...], tmp_path: Path
):
    sweep = ["--multirun", *small, "method=original,finetune", "seed=0,1"]
    code, lines = nursery.call(tmp_path, *sweep, "save_model=false")
    assert code == 0, lines
    sweep.append("save_model=false")
    results = tmp_path / "outputs" / "results"
    torn, *_ = sorted(results.glob("*/row-0.json"))
    torn.write_text("torn")
    (results / "results.jsonl").write_text("")
    before = content(tmp_path / "outputs")
    protect(tmp_path / "outputs")
    try:
        status = call(tmp_path, "unlearn", *sweep, "status=true")
        assert status.returncode == 0, status.stderr
        (line,) = status.stderr.splitlines()
        assert line.startswith(f"{torn} is no row: it is not JSON")
        assert line.endswith("not repaired: Permission denied")
        (last,) = [row for row in status.stdout.splitlines() if " all " in row]
        done, collapsed, failed, running, missing = re.findall(r"\d+", last)
        assert int(done) + int(collapsed) == 3
        assert (failed, running, missing) == ("0", "0", "1")
        plan = call(tmp_path, "unlearn", *sweep, "plan=true")
        assert plan.returncode == 0, plan.stderr
        assert plan.stdout.startswith("4 cells: 3 recorded, 0 running, 1 to run")
        told = call(tmp_path, "evaluate", f"paths.reports={tmp_path / 'elsewhere'}", "figure=none")
        assert told.returncode == 0, told.stderr
        assert any("results.jsonl differs from the rows" in x for x in told.stderr.splitlines())
        assert "Traceback" not in told.stderr
        assert (tmp_path / "elsewhere" / "summary.csv").exists()
        assert content(tmp_path / "outputs") == before
    finally:
        for path in [tmp_path / "outputs", *(tmp_path / "outputs").rglob("*")]:
            path.chmod(0o755)


def test_a_row_file_that_cannot_be_read_is_left_alone_and_its_line_counts(tmp_path: Path):
    write = (
        "import sys; from pathlib import Path; from unlearn.storage.record import RunRecord\n"
        "from unlearn.storage.results_store import ResultsStore\n"
        "store = ResultsStore(Path(sys.argv[1]))\n"
        "made = dict(step=0, names={}, config={}, metrics={}, status='ok', reason=None, seconds=1.0,\n"
        "            peak_bytes=1, versions={}, revision=None, created='')\n"
    )
    rows = "for i in 'ab': store.write(RunRecord(run_id=i * 6, **made))\n"
    again = "print(len(store.load())); store.write(RunRecord(run_id='b' * 6, **made))\n"

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, text=True,
            capture_output=True, preexec_fn=respect_permissions, check=True,
        )  # fmt: skip

    run(write + rows)
    path, mirror = tmp_path / "aaaaaa" / "row-0.json", tmp_path / "results.jsonl"
    before = sorted(mirror.read_text().splitlines())
    path.chmod(0)
    done = run(write + again)
    if not done.stderr:
        pytest.skip("root's right to read everything cannot be given up here")
    assert done.stdout == "2\n" and done.stderr == f"{path} cannot be read: Permission denied\n"
    assert [p.name for p in path.parent.iterdir()] == ["row-0.json"]
    assert sorted(mirror.read_text().splitlines()) == before


def test_a_lock_that_cannot_be_written_is_still_seen(tmp_path: Path):
    hold = (
        "import sys; from pathlib import Path; from unlearn.orchestration.cells import run_lock\n"
        "with run_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.readline()"
    )
    see = (
        "import sys; from pathlib import Path; from unlearn.orchestration.cells import is_locked\n"
        "print(is_locked(Path(sys.argv[1])))"
    )
    pipe, folder = subprocess.PIPE, tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(folder)],
        cwd=REPOSITORY,
        stdin=pipe,
        stdout=pipe,
        text=True,
    )

    def looked() -> str:
        return subprocess.run(
            [sys.executable, "-c", see, str(folder)], cwd=REPOSITORY, capture_output=True, text=True,
            preexec_fn=respect_permissions, check=True,
        ).stdout  # fmt: skip

    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    protect(folder)
    assert looked() == "True\n"
    holder.communicate("\n", timeout=60)
    assert looked() == "False\n"
    folder.chmod(0o755)
