"""Shared by the launchers: a job that another process can run, with its outcome counts."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

Jobs = Sequence[Sequence[str]]
Due = Callable[[int], bool]


@dataclass(frozen=True)
class WorkerJobRunner:
    """Runs jobs of a sweep in whichever process it is sent to.

    Attributes:
        context: Hydra's context.
        config: Config of the sweep.
        task: The command; ``take_counts`` returns the outcome counts since its last call.
        singletons: Hydra's global state.
    """

    context: HydraContext
    config: DictConfig
    task: Any
    singletons: Any

    def __call__(self, number: int, overrides: Sequence[str]) -> dict[str, Any]:
        """Run one job; return the counts of its outcomes."""
        setup_globals()
        Singleton.set_state(self.singletons)
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        result = run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        _ = result.return_value  # raises errors that the job did not handle
        return self.task.take_counts()


class CellLauncher(Launcher):
    """A launcher that gets all jobs with their numbers and checks which still have to run."""

    config: DictConfig
    task: Any
    job_runner: WorkerJobRunner

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Store what the jobs need."""
        self.config = config
        self.task = task_function.task  # type: ignore[attr-defined]  # set by our commands
        self.job_runner = WorkerJobRunner(
            hydra_context, config, self.task.copy_for_process(), Singleton.get_state()
        )

    def launch(self, job_overrides: Jobs, initial_job_idx: int) -> Sequence[Any]:
        """Run all jobs."""
        self.run_due_jobs(job_overrides, lambda number: True)
        return []

    @abstractmethod
    def run_due_jobs(self, jobs: Jobs, due: Due) -> None:
        """Run the jobs that still have to run; the task counts the outcomes."""
