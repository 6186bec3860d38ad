"""Rows and run folders for the tests of the interactive report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from unlearn.storage.record import RunRecord
from unlearn.storage.results_store import ResultsStore

CURVES = (
    "epoch,base/hidden_accuracy_given,full/hidden_accuracy_given,train/loss\n"
    "0,0.9,0.9,\n1,,,2.5\n1,0.4,0.95,\n2,,,0.5\n2,0.1,0.97,\n"
)
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
CORRUPTIONS = {"poison": 0.1, "random_label": 0.2}  # what a method loses there
METHODS = {"rem": 0.95, "npo": 0.75, "etd": 0.6}
RATES = (0.1, 0.5)
HEADLINE = "unlearn.evaluation.metrics.compute_headline"


def write(
    store: ResultsStore, method: str, corruption: str, rate: float, seed: int, **own: Any
) -> Path:
    """Write one run: its row, curves, command line and model; ``own`` replaces parts of it."""
    healed = own.pop("healed", METHODS.get(method, 0.5) - CORRUPTIONS.get(corruption, 0) + rate / 9)
    names = {"dataset": "digits", "corruption": corruption, "model": "resnet9"}
    names |= {"pretraining": "standard", "method": method}
    run_id = f"run-{method}-{corruption}-{rate}-{seed}".replace("_", "-").replace(".", "-").lower()
    metrics = {"healed": healed, "utility": 0.91, "healed_utility": None, "hidden/accuracy": None}
    if healed is not None:
        metrics["healed"] += seed / 100
        metrics["healed_utility"] = metrics["healed"] * 0.91
        metrics["hidden/accuracy"] = 0.25 if rate < 0.5 else None
    config = {"seed": seed, "seeds": {"data": seed}, "discovery": rate, "corrupted": 0.05}
    config |= {"dataset": {"num_classes": 10}, "method": {"lr": METHODS.get(method, 0.5)}}
    config |= {
        "paths": {"root": "/home/someone"},
        "evaluation": {"headline": {"_target_": HEADLINE}},
    }
    parts: dict[str, Any] = {
        "run_id": run_id[:64], "step": 0, "names": names, "config": config, "metrics": metrics,
        "status": "ok", "reason": None, "seconds": 1.5 + seed, "peak_bytes": 2_000_000,
        "uses_forget_set": method != "etd",
        "versions": {"torch": "2.11"}, "revision": "abc", "created": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    record = RunRecord(**(parts | own))
    store.write(record)
    folder = store.run_folder(record.run_id)
    add_files(folder, [f"method={method}", f"corruption={corruption}", f"discovery={rate}"])
    return folder


def add_files(folder: Path, overrides: list[str]) -> None:
    """Put beside the row what a run leaves there."""
    for name, text in {
        "curves/metrics.csv": CURVES,
        ".hydra/config.yaml": "seed: 0\n",
        ".hydra/overrides.yaml": yaml.safe_dump(overrides),
        "model.pt": "weights",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def small_store(root: Path) -> ResultsStore:
    """Return a store of a small plane: three methods, a collapse, a failure and a missing cell."""
    store = ResultsStore(root)
    for method in METHODS:
        for corruption in CORRUPTIONS:
            for rate in RATES:
                for seed in (0, 1):
                    here = (method, corruption, rate)
                    if here == ("npo", "poison", 0.5) or (method == "etd" and rate != 0.1):
                        continue
                    lost = here == ("npo", "random_label", 0.5) and seed == 1
                    own = {"healed": None, "status": "collapsed", "reason": EVIL} if lost else {}
                    write(store, method, corruption, rate, seed, **own)
    break_run(store, "run-broken", {"method": "npo", "corruption": "random_label"}, 0.1)
    return store


def break_run(store: ResultsStore, run_id: str, choices: dict[str, str], rate: float) -> None:
    """Leave what a run that broke leaves: a traceback and hydra's files."""
    names = {"dataset": "digits", "model": "resnet9", "pretraining": "standard"} | choices
    folder = store.write_failure(run_id, "Traceback\nKeyError: 'x'\n").parent
    add_files(folder, ["method=npo", "seed=7"])
    config = {"discovery": rate, "seed": 7, "corrupted": 0.05}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    hydra = {"hydra": {"runtime": {"choices": names}}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultsStore:
    return small_store(tmp_path_factory.mktemp("report") / "results here")


@pytest.fixture
def write_run() -> Callable[..., Path]:
    return write


@pytest.fixture
def curve_text() -> str:
    return CURVES


@pytest.fixture(scope="session")
def evil() -> str:
    return EVIL
