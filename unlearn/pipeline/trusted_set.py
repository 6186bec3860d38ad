"""The trusted set of a job: its draw, and who gets it."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlearn.config.input_checks import TRUSTED_SOURCES
from unlearn.core.errors import ConfigError
from unlearn.core.job import Job
from unlearn.core.types import Request
from unlearn.data.task import Task
from unlearn.data.trusted_sets.base import TrustedSource

if TYPE_CHECKING:
    from unlearn.pipeline.context import RunContext


def check_trusted_set(job: Job, method: Any) -> None:
    """Check, before any training, that a method that needs a trusted set gets one.

    Raises:
        ConfigError: If there is none.
    """
    if getattr(method, "needs_trusted", False) and job.config.get("trusted") is None:
        name = job.names.get("method", type(method).__name__)
        raise ConfigError(
            f"method={name} needs a trusted set, images known to be right: trusted={TRUSTED_SOURCES}"
        )


def draw_trusted_set(
    context: "RunContext", found: tuple[Tensor, ...]
) -> tuple[Task, tuple[Tensor, ...], dict[str, Any]]:
    """Return the task with its trusted set, the requests, and facts for the row.

    Args:
        context: Data of the job.
        found: The requests; what an audit finds joins the first.
    """
    source: TrustedSource | None = context.job.node("trusted")
    if source is None:
        return context.task, found, {}
    task = context.task
    draw = source(
        task.train, task.truth, torch.cat(found), dataset=context.dataset, held_out=context.held_out
    )
    if len(draw.bad):
        found = (torch.cat([found[0].cpu(), draw.bad]).sort().values, *found[1:])
    facts = dict(draw.notes)
    if "audit/found" in facts and task.truth.corrupted.any():
        known = task.truth.corrupted.cpu()[torch.cat(found)].sum()
        facts["discovery/effective"] = float(known / task.truth.corrupted.sum())
    return replace(task, trusted=draw.images), found, facts


def build_request(task: Task, method: Any, *, oracle: bool = False) -> Request:
    """Return the task's request, with the trusted set if the method declares that it needs one."""
    return task.request(oracle=oracle, trusted=getattr(method, "needs_trusted", False))


def describe_access(method: Any) -> str:
    """Return what a method has access to: forget, retain and trusted, joined by +, or none."""
    sets = {
        "forget": method.uses_forget_set,
        "retain": getattr(method, "uses_retain_set", True),
        "trusted": getattr(method, "needs_trusted", False),
    }
    return "+".join(name for name, used in sets.items() if used) or "none"


def describe_trusted_set(context: "RunContext") -> dict[str, Any]:
    """Return number and source of the trusted images, for the row of a method that got them."""
    task, source = context.task, context.job.node("trusted")
    if task.trusted is None or not getattr(context.job.node("method"), "needs_trusted", False):
        return {}
    return {"trusted/n": len(task.trusted), "trusted/source": source.source}
