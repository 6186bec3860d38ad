"""Measures what one GPU shows in nine minutes, and writes one table.

    make gpu                                          # the first of these
    python -m benchmarks.gpu                          # 9 minutes on the GPU
    python -m benchmarks.gpu device=cpu scale=small   # the same steps, small, about a minute of two cores

In order of worth: a REM cell against the CPU, steps per second of pre-training and of REM against a bare
loop, models trained stacked, and as many cells of the CIFAR-10 plane as fit. What is done is kept in
``home``: the next call goes on. Options, as ``key=value``: device=gpu|cpu, scale=full|small, minutes=9,
home=outputs/gpu, and data="..." for the plane: options of unlearn.py in place of dataset=cifar10.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import ROOT, Table
from unlearn.core.files import write_text_atomically
from unlearn.storage.row_files import read_row

DEFAULTS = {"device": "gpu", "scale": "full", "minutes": "9", "home": "outputs/gpu", "data": ""}
LEAST = {"cell": 60.0, "speed": 90.0, "stacking": 60.0, "plane": 20.0}
"""Seconds below which a step is left to the next call; a tenth of that if it is small."""

RESERVE = 10.0
"""Seconds kept for the table, and for the sweep to end."""

CELL = [
    "corruption=poison",
    "discovery=0.5",
    "method=rem",
    "logger=none",
    "trainer.precision=32-true",
]
CELL += ["trainer.unlearning_precision=32-true", "save_model=false"]
SMALL = ["model.width=4", "pretraining.epochs=8", "pretraining.batch_size=32"]
SMALL += ["trainer.threads=1", "pretraining.optimizer.lr=0.1"]
TOLERANCE = {"healed": 0.1, "utility": 0.03}
PLANE = ["sweep=task_space", "corrupted=1000", "pretraining=capacity", "clean_only=true"]
PLANE += ["method=original,rem,retrain", "save_model=false", "logger=none"]
SMALL_PLANE = ["sweep=task_space_coarse", "clean_only=true", "method=original,npo", "logger=none"]


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes:
        device: gpu or cpu.
        small: Whether everything is small.
        minutes: Time of this call.
        home: Folder of all outputs.
        data: Options of the plane's data.
    """

    device: str
    small: bool
    minutes: float
    home: Path
    data: tuple[str, ...]


def read_options(words: Sequence[str]) -> Options:
    """Return the options of a command line.

    Raises:
        ValueError: If one is unknown or wrong, or there is no GPU.
    """
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"unknown option {unknown[0]}; allowed: {', '.join(DEFAULTS)}")
    chosen = {**DEFAULTS, **given}
    if chosen["device"] not in ("gpu", "cpu") or chosen["scale"] not in ("full", "small"):
        raise ValueError("device must be gpu or cpu, scale full or small")
    try:
        minutes = float(chosen["minutes"])
    except ValueError:
        raise ValueError(f"minutes must be a number, got {chosen['minutes']}") from None
    if chosen["device"] == "gpu" and not torch.cuda.is_available():
        raise ValueError(
            "torch finds no GPU; device=cpu scale=small shows the same steps on this machine"
        )
    small = chosen["scale"] == "small"
    data = chosen["data"] or ("dataset=synthetic" if small else "dataset=cifar10")
    return Options(chosen["device"], small, minutes, Path(chosen["home"]), tuple(shlex.split(data)))


def run_unlearn(
    words: Sequence[str], home: Path, accelerator: str, seconds: float
) -> tuple[int, str]:
    """Run unlearn.py in its own process group, interrupted after ``seconds``; return code and errors."""
    command = [sys.executable, "unlearn.py", *words, f"trainer.accelerator={accelerator}"]
    environment = os.environ | {"UNLEARN_HOME": str(home.resolve()), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        return _wait(process, seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _wait(process: "subprocess.Popen[str]", seconds: float) -> tuple[int, str]:
    try:
        said = process.communicate(timeout=max(seconds, 1))[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)  # finished runs are kept
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=RESERVE)
        return 130, "interrupted"
    return process.returncode, said


def compare_cell(asked: Options, seconds: float) -> list[list[str]]:
    """Return the rows of the first step: a REM cell on the device and on the CPU.

    Raises:
        RuntimeError: If a run fails.
    """
    words = [*CELL, *(["dataset=synthetic", *SMALL] if asked.small else ["dataset=digits"])]
    found = {}
    for name in ("cpu", asked.device):
        home = asked.home / f"cell_{name}"
        code, said = run_unlearn(words, home, name, seconds)
        rows = [read_row(path.parent) for path in home.glob("results/*/row-0.json")]
        if code or not rows or rows[0] is None:
            raise RuntimeError(f"the cell on {name} ended with {code}: {said.strip()[-200:]}")
        found[name] = rows[0]
    out = []
    for column, most in TOLERANCE.items():
        one, other = (float(found[name][column]) for name in ("cpu", asked.device))
        verdict = "inside" if abs(one - other) <= most else "outside"
        out.append([f"REM cell, {column}: CPU, {asked.device}", f"{one:.3f}, {other:.3f}",
                    f"within {most:g}: {verdict}"])  # fmt: skip
    return out


def compare_speed(asked: Options, seconds: float) -> list[list[str]]:
    """Return the rows of the second step: pre-training and REM against a bare loop."""
    from benchmarks import step

    case = ("digits recipe", 256, 1, 12, 8, 64, 1, "32-true") if asked.small else step.CASES[-1]
    name, precision, ours, bare, ratio = step.compare(case, 1 if asked.small else 3)
    rows = [
        [f"pre-training, {name}, {precision}, images/s", ours, f"{ratio} of a bare loop ({bare})"]
    ]
    if asked.small:
        step.SAMPLES, step.BATCH, step.WIDTH = 128, 64, 4
    data = step.images(step.SAMPLES, 3, 32)
    half = torch.arange(step.SAMPLES, device=data.label.device) < step.SAMPLES // 2
    request = step.Request(forget=data.rows(half), retain=data.rows(~half))
    _, precision, ours, bare, ratio = step.method_row("rem", request, 1 if asked.small else 3)
    return [*rows, [f"REM, {precision}, images/s", ours, f"{ratio} of a bare loop ({bare})"]]


def compare_stacking(asked: Options, seconds: float) -> list[list[str]]:
    """Return the row of the third step: models trained as one program."""
    from benchmarks import stacking

    case = (
        ("digits recipe, width 8, 12 px", 3, 128, 1, 12, 8, 64)
        if asked.small
        else stacking.GPU_CASES[1]
    )
    name, models, precision, alone, together, faster = stacking.row(*case, 1 if asked.small else 2)
    what = f"{models} models, {name}, {precision}: one by one, stacked, s"
    return [[what, f"{alone}, {together}", f"{faster} times as fast"]]


def run_plane(asked: Options, seconds: float) -> list[list[str]]:
    """Return the rows of the last step: as many cells of the plane as fit; goes on in the next call."""
    words = [*(SMALL_PLANE if asked.small else PLANE), *(SMALL if asked.small else ()), *asked.data]
    home, started = asked.home / "plane", time.monotonic()
    code, said = run_unlearn(words, home, asked.device, seconds)
    rows = [read_row(path.parent) for path in home.glob("results/*/row-0.json")]
    if code not in (0, 130) and not rows:
        raise RuntimeError(f"the plane ended with {code}: {said.strip()[-200:]}")
    values: dict[str, list[float]] = {}
    for row in rows:
        if row and isinstance(row.get("healed_utility"), float):
            values.setdefault(str(row["method"]), []).append(row["healed_utility"])
    spent = time.monotonic() - started
    state = "complete" if code == 0 else "to be continued"
    out = [[f"plane, cells recorded ({state})", str(len(rows)), f"this call: {spent:.0f} s"]]
    for method, own in sorted(values.items()):
        out.append(
            [
                f"plane, {method}: healed x utility",
                f"{sum(own) / len(own):.3f}",
                f"{len(own)} cells",
            ]
        )
    return out


STEPS: dict[str, Callable[[Options, float], list[list[str]]]] = {
    "cell": compare_cell, "speed": compare_speed, "stacking": compare_stacking, "plane": run_plane,
}  # fmt: skip


def run_steps(asked: Options) -> Table:
    """Run the steps that are not done within the time; return the table of all that is known."""
    end = time.monotonic() + 60 * asked.minutes
    path = asked.home / f"state_{asked.device}_{'small' if asked.small else 'full'}.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    rows: list[list[str]] = []
    for name, step in STEPS.items():
        left = end - time.monotonic() - RESERVE
        if known.get(name, {}).get("done"):
            rows += known[name]["rows"]
            continue
        if left <= LEAST[name] * (0.1 if asked.small else 1):
            rows += known.get(name, {}).get("rows") or [[name, "-", "no time left: call again"]]
            continue
        print(f"{name}: at most {left:.0f} s ...", file=sys.stderr, flush=True)
        try:
            found = step(asked, left)
            done = name != "plane" or "complete" in found[0][0]
        except Exception as error:  # the other steps are worth their time
            found, done = [[name, "failed", " ".join(str(error).split())[:200]]], False
        known[name] = {"rows": found, "done": done}
        write_text_atomically(path, json.dumps(known, indent=1))
        rows += found
    device = torch.cuda.get_device_name() if asked.device == "gpu" else "CPU"
    note = f"{device}, torch {torch.__version__}. Failed and unfinished steps: call again."
    return Table("One call for a GPU", ("measured", "value", "compared"), rows, note)


def main() -> None:
    """Print the table and write it to ``home/table.md``."""
    try:
        asked = read_options(sys.argv[1:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    asked.home.mkdir(parents=True, exist_ok=True)
    text = run_steps(asked).markdown()
    write_text_atomically(asked.home / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
