"""Hydra's sweeper of the three commands; hydra only finds plugins in this namespace."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf

from hydra_plugins.unlearn_launchers._work import CellLauncher
from unlearn.orchestration.shared_sweep import SharedSweep

if TYPE_CHECKING:
    from unlearn.orchestration.runner import JobRunner

Select = Callable[[int], bool]


class CellSweeper(BasicSweeper):
    """Launches the jobs that the command has expanded and checked, without composing them again.

    The task function carries the command's ``JobRunner`` as its attribute ``task``.
    """

    def __init__(self, params: Any = None, grids: Any = None) -> None:
        """Accept the sweep's overrides and grids, which the command has already expanded."""
        super().__init__(max_batch_size=None, params=params)

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Store the task function, which carries the jobs."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.task: JobRunner = task_function.task

    def sweep(self, arguments: list[str]) -> Any:
        """Launch the jobs that have to run, then those that other processes left unfinished."""
        assert self.config is not None
        assert self.launcher is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        jobs: Sequence[Sequence[str]] = self.task.outcomes.jobs
        shared = SharedSweep(self.task)
        results = self._launch_due(jobs, shared.claim_cell)
        while left := shared.wait_for_others():
            self._launch_due(jobs, lambda n, left=left: n in left and shared.claim_cell(n))
        return results

    def _launch_due(self, jobs: Sequence[Sequence[str]], due: Select) -> Any:
        assert self.launcher is not None
        if isinstance(self.launcher, CellLauncher):
            return self.launcher.run_due_jobs(jobs, due)
        if not isinstance(self.launcher, BasicLauncher):
            wanted = [job for number, job in enumerate(jobs) if due(number)]
            return self._launch_jobs(wanted, 0) if wanted else []
        self.task.train_shared_models()
        results = []
        for number, job in enumerate(jobs):
            if due(number):
                self.task.unlearn_stack(number)
                results.append(self._launch_one(job, number))
        return results

    def _launch_one(self, job: Sequence[str], number: int) -> Any:
        """Run one job; if hydra cannot write to disk, only this job fails."""
        try:
            return self._launch_jobs([job], number)
        except OSError as error:
            self.task.record_lost_job(number, str(error))
            return None

    def _launch_jobs(self, jobs: Sequence[Sequence[str]], first: int) -> Any:
        assert self.launcher is not None
        results = self.launcher.launch(jobs, initial_job_idx=first)
        for result in results:
            _ = result.return_value  # raises errors that the job did not handle
        return results
