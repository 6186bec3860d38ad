"""What a run leaves in MLflow and trackio, read back by the libraries' own readers."""

import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
TINY = ("dataset=synthetic", "pretraining.epochs=1", "model.width=2", "trainer.accelerator=cpu")
RUN = (*TINY, "method=finetune", "method.epochs=2")


def call(home: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    own = {"UNLEARN_HOME": str(home / "outputs"), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | own | more, check=False,
    )  # fmt: skip


def read_rows(home: Path) -> list[tuple[dict[str, Any], list[float]]]:
    """Return each run's row and its curve of training losses."""
    out = []
    for path in sorted((home / "outputs" / "results").glob("*/row-0.json")):
        lines = csv.DictReader((path.parent / "curves" / "metrics.csv").read_text().splitlines())
        losses = [float(line["train/loss"]) for line in lines if line["train/loss"]]
        out.append((json.loads(path.read_text()), losses))
    return out


@pytest.mark.skipif(find_spec("mlflow") is None, reason="needs mlflow")
def test_runs_are_read_back_from_mlflow(tmp_path: Path):
    result = call(tmp_path, "unlearn.py", "--multirun", *RUN, "seed=0,1", "logger=[csv,mlflow]")
    assert result.returncode == 0, result.stderr
    said = (result.stdout + result.stderr).replace("logger=[csv,mlflow]", "")
    for word in ("WARN", "INFO", "alembic", "mlflow"):
        assert word not in said, said
    store = f"sqlite:///{tmp_path}/outputs/mlflow.db"
    script = (
        "import json, mlflow, sys\n"
        "client = mlflow.MlflowClient(sys.argv[1])\n"
        "one = client.get_experiment_by_name('unlearn')\n"
        "print(json.dumps([{'tags': r.data.tags, 'params': r.data.params, 'metrics': r.data.metrics,"
        " 'status': r.info.status, 'name': r.info.run_name,"
        " 'loss': [m.value for m in client.get_metric_history(r.info.run_id, 'train/loss')]}"
        " for r in client.search_runs([one.experiment_id])]))"
    )
    read = call(tmp_path, "-c", script, store)
    runs = {run["tags"]["run_id"]: run for run in json.loads(read.stdout.splitlines()[-1])}
    rows = read_rows(tmp_path)
    assert len(rows) == len(runs) == 2
    for row, losses in rows:
        run = runs[row["run_id"]]
        assert run["status"] == "FINISHED" and run["tags"]["status"] == row["status"]
        assert run["name"] == f"finetune poison 0.5 synthetic {row['seed']}"
        assert run["tags"]["method"] == "finetune" and run["params"]["method/epochs"] == "2"
        assert len(losses) == 2 and run["loss"] == pytest.approx(losses)  # its own, all of them
        for name in ("healed", "utility", "test/accuracy", "seconds"):
            assert run["metrics"][f"row/{name}"] == pytest.approx(row[name])


@pytest.mark.skipif(find_spec("mlflow") is None, reason="needs mlflow")
def test_a_store_that_mlflow_does_not_know_is_refused_in_one_line(tmp_path: Path):
    bad = call(
        tmp_path, "unlearn.py", *RUN, "logger=mlflow", "logger.mlflow.tracking_uri=nosuch://x"
    )
    assert bad.returncode == 2
    line = bad.stderr.splitlines()[-1]
    assert line.startswith("error: logger.mlflow.tracking_uri=nosuch://x: "), bad.stderr
    assert "Traceback" not in bad.stderr


@pytest.mark.skipif(find_spec("trackio") is None, reason="needs trackio")
def test_runs_are_read_back_from_trackio(tmp_path: Path):
    own = {"TRACKIO_DIR": str(tmp_path / "tracks")}
    words = ("--multirun", *RUN, "seed=0,1", "logger=[csv,trackio]")
    result = call(tmp_path, "unlearn.py", *words, **own)
    assert result.returncode == 0, result.stderr
    said = (result.stdout + result.stderr).replace("logger=[csv,trackio]", "")
    assert "rackio" not in said and "*" not in said, said
    script = (
        "import json, trackio\n"
        "runs = trackio.Api().runs('unlearn')\n"
        "from trackio.sqlite_storage import SQLiteStorage as store\n"
        "print(json.dumps([{'name': r.name, 'config': store.get_run_config('unlearn', r.name),"
        " 'logs': store.get_logs('unlearn', r.name)} for r in runs]))"
    )
    read = call(tmp_path, "-c", script, **own)
    runs = {run["config"]["run_id"]: run for run in json.loads(read.stdout.splitlines()[-1])}
    rows = read_rows(tmp_path)
    assert len(rows) == len(runs) == 2
    for row, losses in rows:
        run = runs[row["run_id"]]
        assert run["name"] == f"finetune poison 0.5 synthetic {row['seed']}"
        assert run["config"]["method/epochs"] == 2 and run["config"]["corruption"]
        logged = [line["train/loss"] for line in run["logs"] if "train/loss" in line]
        assert len(losses) == 2 and logged == pytest.approx(losses)
        (last,) = [line for line in run["logs"] if "row/healed_utility" in line]
        for name in ("healed", "utility", "test/accuracy", "seconds"):
            assert last[f"row/{name}"] == pytest.approx(row[name])


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_a_missing_package_is_named_before_torch_is_loaded(tmp_path: Path, name: str):
    script = (
        "import sys\n"
        f"sys.modules[{name!r}] = None\n"
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        f"util.find_spec = lambda n, *a: None if n == {name!r} else found(n, *a)\n"
        "from unlearn.cli import unlearn_main\n"
        "try:\n    unlearn_main()\n"
        "finally:\n    assert 'torch' not in sys.modules"
    )
    result = call(tmp_path, "-c", script, *RUN, f"logger={name}")
    assert result.returncode == 2
    expected = f"error: logger={name} needs {name}: pip install 'unlearn-bench[{name}]'\n"
    assert result.stderr == expected
