"""The job of train.py: train the original model, or find it in the cache."""

import json
from typing import Any

from unlearn.core import environment
from unlearn.core.job import Job
from unlearn.evaluation.evaluator import evaluate
from unlearn.evaluation.predictions import predict
from unlearn.models.expansion.expanded import drop
from unlearn.pipeline.context import identity, prepare
from unlearn.pipeline.run_record import _describe
from unlearn.pipeline.trained_models import cache, original
from unlearn.reporting import run_summary
from unlearn.reporting.tracking import run_tracking


def pretrain_job(job: Job) -> float | None:
    """Train the original model, or find it, and print how good it is."""
    environment.check_pair()
    context = prepare(job, forget=False)
    if job.config["force"]:
        cache(job).remove(identity(context))
    folder = cache(job).folder(identity(context))
    with run_tracking.tracked(job, but=("csv",)) as loggers:  # the curves are beside the model
        model, trained = original(context)
        task = context.task
        predictions = predict(drop(model), task)
        row = evaluate(job.build(_standard_metrics()), predictions, task)
        row |= {"seconds": trained.notes["seconds"], "images_seen": trained.notes["images_seen"]}
        row["images_per_second"] = trained.notes["images_seen"] / trained.notes["seconds"]
        run_tracking.curves(loggers, folder / "curves" / "metrics.csv")
        run_tracking.original(
            loggers, {**row, **job.names, "seed": job.config["seed"]}, task, predictions
        )
    (job.folder / "training.json").write_text(
        json.dumps({"checkpoint": str(folder)} | row, indent=1)
    )
    run_summary.print_row(row, title=f"{_describe(job)}: original model in {folder}")
    return row.get("test/accuracy")  # type: ignore[return-value]


def _standard_metrics() -> dict[str, Any]:
    names = ("headline", "test", "attack")
    base = "unlearn.evaluation.metrics"
    return {n: {"_target_": f"{base}.{n}", "_partial_": True} for n in names}
