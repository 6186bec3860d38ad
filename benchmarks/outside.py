"""What share of a run lies outside of training steps: data, evaluation, checkpoints, logs.

What a method does between its epochs, as REM measures the forget set and batch norm's statistics,
is told apart: it is no step, but the method's own work.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import ON_GPU, Stopwatch, Table, clock
from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.methods.base import UnlearningMethod
from unlearn.orchestration.runner import _instantiate_node
from unlearn.pipeline.unlearn_job import unlearn_job
from unlearn.training.engine import Engine

CASES = [
    ("digits, finetune", ["method=finetune"]),
    ("digits, rem", ["method=rem"]),
]


def job(folder: Path, options: list[str]) -> Job:
    """Return a job as the command line would make it."""
    paths = [f"paths.root={folder}", "trainer.progress=false"]
    with enable_composition([config_dir()]):
        content = to_plain_config(compose_config("unlearn", [*options, *paths], [config_dir()]))
    content.pop("tune")
    own = folder / "run"
    own.mkdir(exist_ok=True)
    return Job(
        content, compute_run_id(content), own, content["names"], _instantiate_node, brief=True
    )


def timed_hook(method: UnlearningMethod, spent: list[float]) -> None:
    """Note the seconds of what a method does at the end of its epochs."""
    hook = method.on_train_epoch_end

    def timed(*args: Any) -> None:
        started = clock()
        hook(*args)
        spent.append(clock() - started)

    method.on_train_epoch_end = timed  # type: ignore[method-assign]


def share(options: list[str]) -> tuple[float, float, float]:
    """Return the seconds of a whole run, pre-training included, of its steps, and of a method's hooks."""
    watches: list[Stopwatch] = []
    hooks: list[float] = []
    plain_trainer = Engine.build_trainer

    def trainer(self: Engine, *, callbacks: Any, **rest: Any) -> Any:
        watches.append(Stopwatch())
        for part in callbacks:
            if isinstance(part, UnlearningMethod):
                timed_hook(part, hooks)
        return plain_trainer(self, callbacks=[*callbacks, watches[-1]], **rest)

    with tempfile.TemporaryDirectory() as folder:
        made = job(Path(folder), options)
        Engine.build_trainer = trainer  # type: ignore[method-assign]
        try:
            started = clock()
            unlearn_job(made)
            whole = clock() - started
        finally:
            Engine.build_trainer = plain_trainer  # type: ignore[method-assign]
    return whole, sum(w.seconds for w in watches), sum(hooks)


def table(rounds: int) -> Table:
    """Return the share of each case; the middle of the rounds."""
    rows = []
    cases = CASES
    if ON_GPU:
        cases = [*CASES, ("cifar10, rem", ["dataset=cifar10", "method=rem"])]
    for name, options in cases:
        found = sorted((share(options) for _ in range(rounds)), key=lambda f: f[1] / f[0])
        whole, steps, own = found[rounds // 2]
        outside, rest = 1 - steps / whole, 1 - (steps + own) / whole
        rows.append([name, f"{whole:.1f}", f"{steps:.1f}", f"{outside:.1%}", f"{rest:.1%}"])
    columns = ("(d) run", "seconds", "of these in steps", "outside", "without the method's own")
    note = "Original model included, the process's own start (imports) not. Target: 10 %."
    return Table("(d) time outside of training steps", columns, rows, note)
