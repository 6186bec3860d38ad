"""Everything runs on a device of its own: no tensor is in the wrong place, and no step waits for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.accelerator.pretend import REPOSITORY

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no g++ to build the device with")
SMALL = (
    "dataset=digits", "dataset.num_train=200", "dataset.num_test=100", "model.width=4",
    "pretraining.epochs=2", "corrupted=30", "trainer.progress=false", "logger=none",
)  # fmt: skip
METHODS = sorted(p.stem for p in (REPOSITORY / "conf" / "method").glob("*.yaml"))
ELSEWHERE = ("etd", "rum")  # the one needs a pre-training of its own, the other a score
TIMES = ("seconds", "peak")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("device") / "pretend.so"
    torch_home = Path(torch.__file__).parent
    command = [
        "g++", "-std=c++20", "-O0", "-w", "-shared", "-fPIC",
        f"-I{torch_home}/include", f"-I{torch_home}/include/torch/csrc/api/include",
        str(HERE / "pretend.cpp"), "-o", str(out), f"-L{torch_home}/lib", "-ltorch_cpu", "-lc10",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return out


def run(home: Path, *words: str, device: Path | None, resident: bool = True) -> dict[str, int]:
    """Run a command, on the device if one is given; return what it noticed there."""
    notes = home / "notes.json"
    start = [str(REPOSITORY / words[0])]
    if device is not None:
        where = "resident" if resident else "streamed"
        start = [str(HERE / "pretend.py"), str(device), str(notes), where, words[0]]
    environment = {**os.environ, "UNLEARN_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *start, *words[1:], *SMALL],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(notes.read_text()) if device is not None else {}


def rows(home: Path) -> dict[str, dict]:
    found = sorted((home / "results").glob("*/row-*.json"))
    return {p.parent.name + p.name: json.loads(p.read_text()) for p in found}


def never_waited(noticed: dict[str, int]) -> None:
    steps = {"steps", "stacked steps"}
    assert noticed.keys() & steps
    assert not {name: n for name, n in noticed.items() if n and name not in steps}


def test_every_method_runs_on_a_device_and_its_row_is_that_of_the_cpu(library, tmp_path):
    methods = ",".join(name for name in METHODS if name not in ELSEWHERE)
    sweep = ("unlearn.py", "--multirun", f"method={methods}", "corruption=random_label")
    sweep += ("trusted=clean_rows",)
    never_waited(run(tmp_path / "device", *sweep, device=library))
    run(tmp_path / "host", *sweep, device=None)
    there, here = rows(tmp_path / "device"), rows(tmp_path / "host")
    assert there.keys() == here.keys() and len(here) == len(METHODS) - len(ELSEWHERE)
    for run_id, row in here.items():
        for key, value in row.items():
            if isinstance(value, float) and not any(word in key for word in TIMES):
                assert there[run_id][key] == pytest.approx(value, abs=0.03), (row["method"], key)


def test_a_stack_is_made_on_a_device(library, tmp_path):
    noticed = run(
        tmp_path, "unlearn.py", "--multirun", "method=npo,rem,salun", "corruption=interclass_confusion",
        "seed=0,1", "stack=2", "evaluation=reference", device=library,
    )  # fmt: skip
    never_waited(noticed)
    assert noticed["stacked steps"] > 20 and len(rows(tmp_path)) == 6


LOCALIZATIONS = sorted(p.stem for p in (REPOSITORY / "conf" / "localization").glob("*.yaml"))
FORGET_SETS = ("class", "iid", "loss", "memorization", "non_iid", "proxy", "entanglement", "random")
DETECTORS = ("activation_clustering", "spectral_signatures", "cleanlab", "confidence", "loss")
WITH_SCORE = "score=holdout_retraining"
COMMANDS = {
    "pretraining=etd": ("pretraining=etd", "method=etd,rem,npo"),
    "localizations": (
        f"localization={','.join(n for n in LOCALIZATIONS if n not in ('saved', 'none'))}",
        "method=npo", "budget=0.4", "mask_batch_norm=recalibrate",
    ),
    "forget sets": (f"forget_set={','.join(FORGET_SETS)}", "method=npo", WITH_SCORE),
    "detectors": (f"forget_set={','.join(DETECTORS)}", "method=npo"),
    "requests in a row": ("forget_set=sequential", "method=npo", WITH_SCORE),
    "parts": ("method=rum", WITH_SCORE),
    "evaluations": ("evaluation=attacks,change,distances,relearn,twins", "method=npo"),
    "saliency of inputs": ("method=salun", "method.form=input_saliency"),
    "batch norm of its own": ("method=rem", "method.batch_norm=separate,recalibrate"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize("name", COMMANDS)
def test_all_else_runs_on_a_device(library, tmp_path, name, resident):
    words = ("unlearn.py", "--multirun", "corruption=random_label", *COMMANDS[name])
    never_waited(run(tmp_path, *words, device=library, resident=resident))
    assert rows(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("corruption=none", "compare_scores=all", "compare_scores.memorization.num_models=4"),
        (
            "corruption=none",
            "compare_scores=all",
            "compare_scores.memorization.num_models=4",
            "stack=4",
        ),
        ("corruption=random_label", "diagnosis=all"),
    ],
)
def test_scores_and_diagnoses_run_on_a_device(library, tmp_path, words):
    never_waited(run(tmp_path, "evaluate.py", *words, device=library))
