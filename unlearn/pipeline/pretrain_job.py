"""The job of train.py: train the original model, or find it in the cache."""

import json
from typing import Any

from unlearn.core import environment
from unlearn.core.job import Job
from unlearn.evaluation.evaluator import evaluate_metrics
from unlearn.evaluation.predictions import predict_task
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.pipeline.context import load_context, original_model_identity
from unlearn.pipeline.run_record import describe_run
from unlearn.pipeline.trained_models import checkpoint_cache, load_original
from unlearn.reporting import run_summary
from unlearn.reporting.tracking import run_tracking


def pretrain_job(job: Job) -> float | None:
    """Train the original model, or find it, and print how good it is."""
    environment.check_torchvision()
    context = load_context(job, forget=False)
    if job.config["force"]:
        checkpoint_cache(job).remove_model(original_model_identity(context))
    folder = checkpoint_cache(job).model_folder(original_model_identity(context))
    with run_tracking.open_loggers(job, but=("csv",)) as loggers:  # the curves are beside the model
        model, trained = load_original(context)
        task = context.task
        predictions = predict_task(remove_extra_channels(model), task)
        row = evaluate_metrics(job.build(_standard_metrics()), predictions, task)
        row |= {"seconds": trained.notes["seconds"], "images_seen": trained.notes["images_seen"]}
        row["images_per_second"] = trained.notes["images_seen"] / trained.notes["seconds"]
        run_tracking.log_curves(loggers, folder / "curves" / "metrics.csv")
        run_tracking.log_original(
            loggers, {**row, **job.names, "seed": job.config["seed"]}, task, predictions
        )
    (job.folder / "training.json").write_text(
        json.dumps({"checkpoint": str(folder)} | row, indent=1)
    )
    run_summary.print_row(row, title=f"{describe_run(job)}: original model in {folder}")
    return row.get("test/accuracy")  # type: ignore[return-value]


def _standard_metrics() -> dict[str, Any]:
    functions = ("compute_headline", "compute_test_accuracy", "compute_attack_success")
    base = "unlearn.evaluation.metrics"
    return {name: {"_target_": f"{base}.{name}", "_partial_": True} for name in functions}
