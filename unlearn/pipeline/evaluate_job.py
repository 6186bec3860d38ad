"""The job of evaluate.py: evaluate a checkpoint, or summarise recorded rows."""

from dataclasses import replace
from pathlib import Path

from unlearn.core.job import Job
from unlearn.core.scale import select_scale
from unlearn.evaluation.predictions import predict_task
from unlearn.pipeline import reference_models
from unlearn.pipeline.clean_only import add_clean_only_columns
from unlearn.pipeline.compare_scores_job import score_job
from unlearn.pipeline.diagnose_job import diagnose_job
from unlearn.pipeline.estimate_regularity import estimate_list_regularity
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.pipeline.run_record import describe_run, evaluate_run
from unlearn.reporting import run_summary, summary_report
from unlearn.reporting.tracking import wandb_dashboard, wandb_mirror
from unlearn.storage.user_checkpoint import match_checkpoint


def evaluate_job(job: Job) -> float | None:
    """Evaluate a checkpoint on a task, or turn all recorded rows into a table and figures."""
    job = replace(job, config=select_scale(job.config))
    if job.config["compare_scores"] is not None:
        return score_job(job)
    if job.config["diagnosis"] is not None:
        return diagnose_job(job)
    if job.config["dashboard"]:
        options = wandb_mirror.find_wandb_options(job.config["logger"])
        wandb_dashboard.publish_dashboard(
            options, job.config["where"], Path(job.config["paths"]["reports"])
        )
        return None
    if job.config["advise"]:
        summary_report.print_advice(job.config, estimate_list_regularity(job))
        return None
    if job.config["checkpoint"] is None:
        if job.config["clean_only"]:
            add_clean_only_columns(job)
        summary_report.write_summary(job.config)
        return None
    context = load_with_forget_set(job)
    network = job.node("model")(
        in_channels=context.task.train.image.shape[1],
        image_size=context.task.train.image.shape[-1],
        num_classes=context.task.train.num_classes,
    )
    path = Path(job.config["checkpoint"])
    match_checkpoint(path, network, f"model={job.names['model']}").load_into(network)
    network = context.engine.place_model(network).eval()
    predictions = replace(
        predict_task(network, context.task),
        **reference_models.collect_references(context, network, None),
    )
    row = evaluate_run(context, predictions)
    run_summary.print_row(row, title=f"{path}: {describe_run(job)}")
    return row.get("healed_utility")  # type: ignore[return-value]
