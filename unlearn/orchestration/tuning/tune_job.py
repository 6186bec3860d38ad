"""Choosing a method's hyper-parameters from what an unlearner may see, with Optuna."""

from importlib.util import find_spec

from unlearn.core.job import Job


def tune_job(job: Job) -> float | None:
    """Work on the study of the job's method, and write the best setting when all trials are done.

    Args:
        job: What would run, were it not for the study; ``tune`` in its config says which.

    Returns:
        The best score, or None while another process works on the last trials.

    Raises:
        ValueError: If Optuna is not installed, or something asked for contradicts a study.
    """
    if find_spec("optuna") is None:
        raise ValueError("tune.trials needs Optuna: pip install 'unlearn-bench[tune]'")
    from unlearn.orchestration.tuning.run_study import run_study

    return run_study(job)
