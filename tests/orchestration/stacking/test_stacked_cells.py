"""Cells that are unlearned as one program leave the rows that they would leave alone."""

import functools
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearn.config.command_line import Arguments
from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.methods.localization.mask import Mask
from unlearn.orchestration.cells import expand_cells, run_lock
from unlearn.orchestration.outcomes import JobCounts
from unlearn.orchestration.progress import Progress
from unlearn.orchestration.runner import JobRunner, _instantiate_node
from unlearn.orchestration.stacking import stacked_cells
from unlearn.orchestration.stacking.stacked_cells import stack_key, unlearn_stack
from unlearn.pipeline.unlearn_job import unlearn_job
from unlearn.training.stacked import unlearning

DIGITS = (
    "dataset=digits", "dataset.num_train=400", "dataset.num_test=200", "model.width=4",
    "pretraining.epochs=6", "corrupted=40", "trainer.progress=false", "save_model=false",
)  # fmt: skip
ASCENT = ("optimizer@method.optimizer=sgd", "method.batch_size=32", "method.gamma=0.3")
METHODS = {
    "gradient_ascent": (*ASCENT, "method.epochs=8", "method.optimizer.lr=0.003"),
    "npo": (*ASCENT, "method.epochs=8", "method.optimizer.lr=0.01", "method.batch_norm=eval"),
    "rem": (
        "method.epochs=1",
        "method.optimizer.lr=0.05",
        "method.max_removal_epochs=30",
        "method.gamma=0.4",
    ),
}
TIMES = ("seconds", "peak_bytes", "sha256")


@functools.cache
def content_of(*options: str) -> str:
    with enable_composition([config_dir()]):
        words = [*DIGITS, "paths.root=HOME", *options]
        return json.dumps(to_plain_config(compose_config("unlearn", words, [config_dir()])))


def job(home: Path, method: str, *options: str, seed: int = 0, discovery: float = 0.5) -> Job:
    text = content_of(f"method={method}", *METHODS.get(method, ()), *options)
    content = json.loads(text.replace("HOME", str(home)))
    content.pop("tune")
    content |= {"discovery": discovery, "seeds": {**content["seeds"], "unlearn": seed}}
    run_id = compute_run_id(content)
    return Job(content, run_id, home / run_id, content["names"], _instantiate_node, brief=True)


def jobs(home: Path, method: str, *options: str) -> list[Job]:
    """Return cells of one original with forget sets of 20, 20 and 36 samples."""
    return jobs_of_options(home, method, [options] * 3)


def jobs_of_options(home: Path, method: str, options: list[tuple[str, ...]]) -> list[Job]:
    """Return such cells, each with its own options."""
    cells = zip(((0, 0.5), (1, 0.5), (0, 0.9)), options, strict=True)
    made = [job(home, method, "stack=4", *own, seed=s, discovery=d) for (s, d), own in cells]
    for one in made:
        one.folder.mkdir(exist_ok=True)
    return made


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


def row(one: Job) -> dict[str, Any]:
    unlearn_job(one)
    return json.loads((one.folder.parent / "results" / one.run_id / "row-0.json").read_text())


def curve(one: Job) -> list[list[float]]:
    lines = (one.folder / "curves" / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    keep = [k for k, name in enumerate(names) if name != "seconds"]
    return [[float(line.split(",")[k] or "nan") for k in keep] for line in lines[1:]]


def compared(one: Job, outcomes: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a cell made alone; that of its outcome in a stack must equal it."""
    alone, alone_curve = row(one), curve(one)
    (one.folder / "curves" / "metrics.csv").unlink()
    mask = one.folder / "mask.pt"
    bits = dict(Mask.load(mask)) if mask.exists() else {}
    mask.unlink(missing_ok=True)
    own, own_curve = row(replace(one, stacked_result=outcomes[one.run_id])), curve(one)
    assert own["method/stacked"] == len(outcomes)
    kept = dict(Mask.load(mask)) if mask.exists() else {}
    assert kept.keys() == bits.keys() and all(torch.equal(kept[n], bits[n]) for n in bits)
    for key, value in alone.items():
        if any(word in key for word in TIMES):
            continue
        if isinstance(value, float):
            assert own[key] == pytest.approx(value, abs=2e-3), key
        elif key.startswith("method/"):
            assert own[key] == value, key
    assert torch.allclose(
        torch.tensor(own_curve), torch.tensor(alone_curve), atol=5e-3, equal_nan=True
    )
    assert alone["images_seen"] == own["images_seen"] > 0
    return alone


@pytest.mark.parametrize("method", ["gradient_ascent", "npo", "rem"])
def test_a_row_is_that_of_the_cell_alone(method, home, monkeypatch):
    epochs = (1, 2, 2) if method == "rem" else (2, 4, 8)
    gamma = () if method == "rem" else ("method.gamma=0",)  # not reached in so few epochs
    options = [(f"method.epochs={number}", *gamma) for number in epochs]
    cells = jobs_of_options(home, method, options)
    groups: list[int] = []
    losses = unlearning.StackedUnlearner._compute_losses
    monkeypatch.setattr(
        unlearning.StackedUnlearner,
        "_compute_losses",
        lambda self, g: groups.append(len(g)) or losses(self, g),
    )
    outcomes = unlearn_stack(cells)
    assert outcomes.keys() == {one.run_id for one in cells}
    assert max(groups) >= 2 and min(groups) == 1  # in step, and out of step
    rows = [compared(one, outcomes) for one in cells]
    assert len({r["images_seen"] for r in rows}) > 1  # they stop at different times


LAST = "method.select=last"  # not the original, which both could choose
OWN = {  # what differs between the cells of a stack: which weights may move, a fading penalty, labels
    "npo": ("localization=salloc", [LAST, "budget=0.3"], [LAST, "budget=0.7", "seeds.mask=3"]),
    "l1_sparse": ("method.gamma=0.001", ["method.epochs=1"], ["method.epochs=2"]),
    "salun": ("method.redraw=true", ["seeds.unlearn=0"], ["seeds.unlearn=1"]),
}


@pytest.mark.parametrize("method", OWN)
def test_what_is_a_cells_own_stays_its_own(method, home):
    common, *own = OWN[method]
    recipe = ("method.epochs=2", "optimizer@method.optimizer=sgd", "method.optimizer.lr=0.02")
    options = [(*recipe, "method.batch_size=128", common, *words) for words in own]
    cells = [job(home, method, "stack=4", *words, seed=n) for n, words in enumerate(options)]
    for one in cells:
        one.folder.mkdir(exist_ok=True)
    outcomes = unlearn_stack(cells)
    assert outcomes.keys() == {one.run_id for one in cells}
    for cell in cells:
        compared(cell, outcomes)
    one, other = [
        torch.cat([p.detach().flatten() for p in outcomes[cell.run_id].model.parameters()])
        for cell in cells
    ]
    assert not torch.equal(one, other)


def task_of(home: Path, cells: list[Job]) -> JobRunner:
    """Return the command that a sweep over the cells is."""
    words = [
        [*DIGITS, *METHODS["npo"], "method=npo", f"paths.root={home}", "stack=4",
         f"discovery={one.config['discovery']}", f"seeds.unlearn={one.config['seeds']['unlearn']}"]
        for one in cells
    ]  # fmt: skip
    found = list(expand_cells("unlearn", words, Arguments([], True, False, None, [config_dir()])))
    assert [cell.run_id for cell in found] == [one.run_id for one in cells]
    return JobRunner("unlearn", "unlearn_job", JobCounts(words, progress=Progress(found)))


def test_a_sweep_takes_cells_of_a_kind_at_once_and_holds_them(home, capsys, monkeypatch):
    command = task_of(home, jobs(home, "npo"))
    cells = command.outcomes.progress.cells
    for cell in cells:
        (cell.folder / "row-0.json").unlink(missing_ok=True)
    asked: list[list[str]] = []
    made = {cells[0].run_id: object(), cells[1].run_id: object()}

    def together(jobs):
        asked.append([job.run_id for job in jobs])
        return made

    monkeypatch.setattr(stacked_cells, "unlearn_stack", together)
    with run_lock(cells[2].folder):  # another process is at it
        command.unlearn_stack(0)
    assert asked == [[cells[0].run_id, cells[1].run_id]]
    assert [cell.is_running() for cell in cells] == [True, True, False]
    assert all(command.needs_run(n) for n in range(3))  # ours, although they are busy
    command.unlearn_stack(1)
    assert len(asked) == 1  # its outcome is there
    del made[cells[1].run_id]
    command = task_of(home, jobs(home, "npo"))
    command.unlearn_stack(2)
    assert len(asked) == 1  # alone: there is none to come
    assert not cells[2].is_running()


def test_a_stack_that_fails_leaves_its_cells_to_be_made_alone(home, caplog, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("no room\nmore")

    monkeypatch.setattr(unlearning.StackedUnlearner, "_compute_losses", full)
    with caplog.at_level(logging.WARNING):
        assert unlearn_stack(jobs(home, "npo")) == {}
    assert "unlearning one by one, the stack failed: no room" in caplog.text


def test_what_makes_cells_kin(home):
    one = job(home, "npo", "stack=4").config
    other = job(home, "npo", "stack=4", "method.optimizer.lr=0.5", seed=3, discovery=1.0).config
    assert stack_key(one) == stack_key(other) is not None
    for option in ("method.beta=2.0", "model.width=8", "trainer.compile=true"):
        assert stack_key(job(home, "npo", "stack=4", option).config) != stack_key(one)
    assert stack_key(job(home, "npo").config) is None  # auto: on a CPU one by one
    within = stack_key(one | {"localization": {"h": 1}, "budget": 0.3})
    assert within == stack_key(one | {"localization": {"h": 1}, "budget": 0.5}) != stack_key(one)
    assert stack_key(one | {"mask_batch_norm": "freeze"}) != stack_key(one)
    assert stack_key(one | {"auto_methods": []}) is None
    seeded = [job(home, "rft", "localization=salloc", "stack=4", f"seed={k}") for k in (0, 1)]
    assert stack_key(seeded[0].config) == stack_key(seeded[1].config)


def test_auto_keeps_to_one_by_one_where_a_stack_is_no_faster(home, monkeypatch):
    cells = [replace(one, config=one.config | {"stack": "auto"}) for one in jobs(home, "npo")]
    for times, count in ((1.1, 0), (3.0, 3)):
        monkeypatch.setattr(stacked_cells, "measure_speedup", lambda *_, times=times, **__: times)
        assert len(unlearn_stack(cells)) == count


def test_a_method_that_is_not_stackable_is_made_alone(home):
    assert unlearn_stack([job(home, "ssd", "stack=4", seed=k) for k in (0, 1)]) == {}
