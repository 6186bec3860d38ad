"""Full disks, folders in the way, no memory, lost losses, jumping clocks: a line each."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

METHODS = """
import time
import torch
from unlearn.methods.original import Original

class Greedy(Original):
    def unlearn(self, model, request, fit):
        torch.empty(2**58)  # more than any machine has
        return model

class Clock(Original):
    def unlearn(self, model, request, fit):
        time.time = lambda: 0.0  # back by half a century
        return model
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "faulty.py").write_text(METHODS)
    group = tmp_path / "conf" / "method"
    group.mkdir(parents=True)
    for name in ("Greedy", "Clock"):
        (group / f"{name.lower()}.yaml").write_text(f"_target_: faulty.{name}\n")
    wild = "defaults: [finetune, _self_]\noptimizer:\n  lr: 1.0e+30\n"
    (group / "wild.yaml").write_text(wild)
    return tmp_path


def errors(lines: list[str]) -> list[str]:
    assert not any("Traceback" in line for line in lines), lines
    return [line for line in lines if line.startswith("error: ")]


def test_cells_that_break_cost_a_line_each_and_the_others_go_on(
    nursery: Any, store: Any, small: tuple[str, ...], home: Path
):
    sweep = ["--multirun", *small, "method=greedy,wild,clock,original"]
    code, lines = nursery.call(home, *sweep)
    assert code == 1, lines
    (problem,) = errors(lines)
    assert "can't allocate memory" in problem and "error.txt" in problem
    assert any(line.startswith("the model collapsed: loss is") for line in lines), lines
    assert lines[-1].startswith("3 done, 1 failed, 0 skipped")
    found = store(home).methods()
    assert found.keys() == {"wild", "clock", "original"} and found["wild"] == "collapsed"
    ahead = 2_000_000_000 + 10**8  # files from the future: the clock was wrong, or is now
    for path in (home / "outputs").rglob("*"):
        os.utime(path, (ahead, ahead))
    code, lines = nursery.call(home, *sweep)
    assert code == 1 and len(errors(lines)) == 1, lines  # only what is missing is tried again
    assert lines[-1].startswith("0 done, 1 failed, 3 skipped"), lines
    assert store(home).methods() == found


def test_a_loss_lost_in_training_costs_its_cell_a_line(
    nursery: Any, store: Any, small: tuple[str, ...], home: Path
):
    rates = "pretraining.optimizer.lr=1e30,0.01"
    code, lines = nursery.call(home, "--multirun", *small, "method=original", rates)
    assert code == 1 and lines[-1].startswith("1 done, 1 failed"), lines
    (problem,) = errors(lines)
    assert "CollapsedError: loss is" in problem
    assert len(store(home).files()) == len(store(home).trained()) == 1


def test_a_file_that_may_not_grow_leaves_nothing_half(
    nursery: Any, store: Any, small: tuple[str, ...], home: Path
):
    code, lines = nursery.call(home, *small, "method=original", limit=10_000)
    assert code == 1 and len(errors(lines)) == 1, lines
    assert not store(home).files() and not store(home).parts() and not store(home).trained()
    code, lines = nursery.call(home, *small, "method=original")
    assert code == 0, lines
    assert store(home).methods().keys() == {"original"}
    assert not list((home / "outputs").glob("results/*/error.txt"))


@pytest.fixture
def disk(home: Path) -> Iterator[Path]:
    """Mount a disk of 200 KB as the outputs, or skip."""
    folder = home / "outputs"
    folder.mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(size, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no command mount")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_full_and_a_read_only_disk_cost_a_line_and_the_same_command_goes_on(
    nursery: Any, store: Any, small: tuple[str, ...], home: Path, disk: Path
):
    sweep = ["--multirun", *small, "method=original", "seed=0,1,2,3,4,5"]
    code, lines = nursery.call(home, *sweep)
    assert code == 1, lines
    lost = errors(lines)
    assert 0 < len(lost) < 6 and all("No space left" in x or "write" in x for x in lost), lost
    assert lines[-1].startswith(f"{6 - len(lost)} done, {len(lost)} failed"), lines
    assert len(store(home).table()) == 6 - len(lost) and not store(home).parts()
    remount(disk, "size=50m,ro")
    code, lines = nursery.call(home, *sweep)
    assert code == 1 and len(errors(lines)) == 1, lines
    assert (
        "Read-only file system" in lines[-1] and "UNLEARN_HOME sets the output folder" in lines[-1]
    )
    remount(disk, "rw")
    code, lines = nursery.call(home, *sweep)
    assert code == 0 and lines[-1] == f"{len(lost)} done, 0 failed, {6 - len(lost)} skipped", lines
    assert len(store(home).table()) == 6
    assert not list(disk.glob("results/*/error.txt"))


def test_a_file_where_the_outputs_go_costs_a_line(nursery: Any, small: tuple[str, ...], home: Path):
    (home / "outputs").write_text("in the way")
    for more in ([], ["--multirun", "seed=0,1"]):
        code, lines = nursery.call(home, *small, *more)
        assert code == 1 and len(lines) == 1, lines
        assert lines[0].startswith("error: ") and "UNLEARN_HOME sets the output folder" in lines[0]


def test_caches_that_cannot_be_written(
    nursery: Any, store: Any, small: tuple[str, ...], home: Path
):
    for name in ("a", "b"):
        (home / "photos" / name).mkdir(parents=True)
        for i in range(10):
            colour = (20 * i, 255 * (name == "a"), 0)
            Image.new("RGB", (12, 12), colour).save(home / "photos" / name / f"{i}.png")
    (home / "outputs").mkdir()
    (home / "outputs" / "data_cache").write_text("in the way")
    own = [*small[1:], "dataset=imagefolder", f"dataset.root={home / 'photos'}"]
    own += ["dataset.image_size=12", "corrupted=0.25", "corruption=random_label", "method=original"]
    code, lines = nursery.call(home, *own)
    assert code == 0, lines
    (told,) = [line for line in lines if "are not cached" in line]
    assert str(home / "outputs" / "data_cache") in told
    (home / "outputs" / "checkpoints").rename(home / "elsewhere")
    (home / "outputs" / "checkpoints").write_text("in the way")
    code, lines = nursery.call(home, "--multirun", *small, "method=original", "seed=0,1")
    assert code != 0 and lines[-1].startswith("0 done, 2 failed"), lines
    lost = errors(lines)
    assert len(lost) == 2 and all(str(home / "outputs" / "checkpoints") in line for line in lost)
    assert len(store(home).table()) == 1
