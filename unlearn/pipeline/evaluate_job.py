"""The job of evaluate.py: evaluate a checkpoint, or summarise recorded rows."""

from dataclasses import replace
from pathlib import Path

from unlearn.core.job import Job
from unlearn.evaluation.predictions import predict
from unlearn.pipeline import reference_models
from unlearn.pipeline.compare_scores_job import score_job
from unlearn.pipeline.diagnose_job import diagnose_job
from unlearn.pipeline.estimate_regularity import regularity
from unlearn.pipeline.forget_set import prepared
from unlearn.pipeline.run_record import _describe, evaluate_all
from unlearn.reporting import run_summary, summary_report
from unlearn.reporting.tracking import wandb_dashboard, wandb_mirror
from unlearn.storage.user_checkpoint import fit


def evaluate_job(job: Job) -> float | None:
    """Evaluate a checkpoint on a task, or turn all recorded rows into a table and figures."""
    if job.config["scores"] is not None:
        return score_job(job)
    if job.config["diagnose"] is not None:
        return diagnose_job(job)
    if job.config["dashboard"]:
        options = wandb_mirror.target(job.config["logger"])
        wandb_dashboard.publish(options, job.config["where"], Path(job.config["paths"]["reports"]))
        return None
    if job.config["advise"]:
        summary_report.advise(job.config, regularity(job))
        return None
    if job.config["checkpoint"] is None:
        summary_report.report(job.config)
        return None
    context = prepared(job)
    network = job.node("model")(
        in_channels=context.task.train.image.shape[1],
        image_size=context.task.train.image.shape[-1],
        num_classes=context.task.train.num_classes,
    )
    path = Path(job.config["checkpoint"])
    fit(path, network, f"model={job.names['model']}").load_into(network)
    network = context.engine.place(network).eval()
    predictions = replace(
        predict(network, context.task), **reference_models.further(context, network, None)
    )
    row = evaluate_all(context, predictions)
    run_summary.print_row(row, title=f"{path}: {_describe(job)}")
    return row.get("healed_utility")  # type: ignore[return-value]
