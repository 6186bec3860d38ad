"""One unlearning by several processes of this machine, and its evaluation.

Every rank runs the method on the same request; batches and evaluated sets are divided among them.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from unlearn.core.job import Job
from unlearn.data.task import Task
from unlearn.evaluation.monitor import Monitor
from unlearn.evaluation.predictions import predict_task
from unlearn.methods.base import UnlearningMethod
from unlearn.models.inference import spread_inference
from unlearn.pipeline.context import RunContext, build_method
from unlearn.pipeline.run_method import UnlearningResult, run_timed
from unlearn.training.distributed import Rank, run_distributed
from unlearn.training.engine import Engine, enable_determinism
from unlearn.training.loggers import CurveRecorder
from unlearn.training.unlearning import LightningFit


def is_spread(job: Job, method: Any) -> bool:
    """Return whether the unlearning of a job runs on several devices.

    One-shot methods take no training steps and run on the first.

    Raises:
        ValueError: If the method cannot be spread over devices, or over micro-batches.
    """
    trainer = job.config["trainer"]
    count, parts = trainer["devices"], trainer.get("accumulate", 1)
    if count * parts == 1 or _takes_no_steps(method):
        return False
    find = getattr(method, "get_spread_obstacle", None)
    why = "it runs other methods" if find is None else find(count * parts)
    if why is not None:
        name = job.config.get("names", {}).get("method") or type(method).__name__
        key = "accumulate" if count == 1 else "devices"
        raise ValueError(
            f"method={name} cannot run on trainer.{key}={trainer[key]}: {why}; set trainer.{key}=1"
        )
    return count > 1


def _takes_no_steps(method: Any) -> bool:
    return isinstance(method, UnlearningMethod) and method.epochs == 0


def run_spread(context: RunContext, model: nn.Module, *, seed: int) -> UnlearningResult:
    """Run the job's method on a copy of ``model``; return rank 0's result, with predictions."""
    engine = context.engine
    plan = {
        "augment": context.dataset.augment, "seed": seed, "title": context.job.names["method"],
        "oracle": context.job.config["oracle"],
    }  # fmt: skip
    home = next(model.parameters()).device
    task = replace(
        context.task, train=context.task.train.to("cpu"), test=context.task.test.to("cpu")
    )
    result = run_distributed(
        unlearn_as_rank, build_method(context.job), copy.deepcopy(model).cpu(), task,
        engine, plan,
        count=engine.devices, threads=torch.get_num_threads(),
        backend="nccl" if engine.device.type == "cuda" else "gloo",
    )  # fmt: skip
    if result.model is not None:
        result.model = engine.place_model(result.model.to(home)).eval()
    return result


def unlearn_as_rank(
    rank: Rank,
    method: Any,
    model: nn.Module,
    task: Task,
    engine: Engine,
    plan: Mapping[str, Any],
) -> UnlearningResult | None:
    """Unlearn and evaluate as one of several ranks; return the result on rank 0."""
    if engine.device.type == "cuda":
        enable_determinism()
        size = 2 * task.train.image.numel() + task.test.image.numel()
        if engine.fits_memory(size):
            task = replace(
                task, train=task.train.to(engine.device), test=task.test.to(engine.device)
            )
    curves = CurveRecorder()
    loggers: Any = [curves] if rank.number == 0 else []
    monitor = Monitor(method, task, loggers)
    fit = LightningFit(
        engine, augment=plan["augment"], seed=plan["seed"], loggers=loggers, callbacks=[monitor],
        title=plan["title"], rank=rank,
    )  # fmt: skip
    own = engine.place_model(copy.deepcopy(model))
    with spread_inference(rank.number, rank.count):
        request = task.request(oracle=plan["oracle"])
        result = run_timed(method, own, request, monitor, fit, engine)
        if result.model is not None:
            result.predictions = predict_task(result.model, task)
    result.curves = curves.values
    if rank.number:
        return None
    if result.model is not None:
        result.model = result.model.cpu()
    return result
