"""Hydra's sweeper of the three commands; hydra looks for plugins in this namespace alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf

from hydra_plugins.unlearn_launchers._work import CellLauncher

Select = Callable[[int], bool]


class CellSweeper(BasicSweeper):
    """Launches the jobs that the command has expanded and checked, and composes none of them twice.

    The task function carries ``task``: with ``jobs``, the overrides of each, and ``due``, which says
    of a job's number whether it still has to run: another process may have taken it meanwhile;
    ``ahead``, which trains what the jobs share before they run here, and ``beside``, which
    unlearns several at once when the first of them is due.
    """

    def __init__(self, params: Any = None, grids: Any = None) -> None:
        """Take overrides to sweep over, and further grids; the command has read them already."""
        super().__init__(max_batch_size=None, params=params)

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Keep the task function; it carries the jobs."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.task = task_function.task

    def sweep(self, arguments: list[str]) -> Any:
        """Launch what is due."""
        assert self.config is not None
        assert self.launcher is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        jobs: Sequence[Sequence[str]] = self.task.outcomes.jobs
        due: Select = self.task.due
        if isinstance(self.launcher, CellLauncher):
            return self.launcher.run(jobs, due)
        if not isinstance(self.launcher, BasicLauncher):
            wanted = [job for number, job in enumerate(jobs) if due(number)]
            return self._launch(wanted, 0) if wanted else []
        self.task.ahead()
        results = []
        for number, job in enumerate(jobs):
            if due(number):
                self.task.beside(number)
                results.append(self._alone(job, number))
        return results

    def _alone(self, job: Sequence[str], number: int) -> Any:
        """Run one job; a disk on which hydra itself cannot write costs the job and no other."""
        try:
            return self._launch([job], number)
        except OSError as error:
            self.task.lose(number, str(error))
            return None

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> Any:
        assert self.launcher is not None
        results = self.launcher.launch(jobs, initial_job_idx=first)
        for result in results:
            _ = result.return_value  # raises what the job could not handle
        return results
