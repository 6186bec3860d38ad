"""Tunes a method's hyperparameters with Optuna, without ground truth."""

from importlib.util import find_spec

from unlearn.core.job import Job


def tune_job(job: Job) -> float | None:
    """Run trials of the study of the job's method; write the best setting when all are done.

    Args:
        job: The job to tune; ``tune`` in its config defines the study.

    Returns:
        The best score, or None while another process works on the last trials.

    Raises:
        ValueError: If Optuna is not installed, or an option conflicts with tuning.
    """
    if find_spec("optuna") is None:
        raise ValueError("tune.trials needs Optuna: pip install 'unlearn-bench[tune]'")
    from unlearn.orchestration.tuning.run_study import run_study

    return run_study(job)
