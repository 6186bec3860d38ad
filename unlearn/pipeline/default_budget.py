"""Budgets of methods on a user's model, in units of one retraining: said, and by default not above it.

Shapes: N training samples.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

from unlearn.core.types import Request
from unlearn.methods.base import UnlearningMethod
from unlearn.methods.retrain import Retrain
from unlearn.pipeline.context import RunContext

log = logging.getLogger(__name__)

STEPS, LEAST_BATCH = 32, 16
"""Steps per pass over the data that default batches allow at least, and their smallest size."""


@dataclass(frozen=True)
class Budget:
    """What a method trains.

    Attributes:
        epochs: Passes over its set.
        batch_size: Images per step.
        cost: In units of one retraining: images times the cost of each, relative to plain training.
    """

    epochs: int
    batch_size: int
    cost: float


def compute_cost(method: UnlearningMethod, request: Request, retraining: int, epochs: int) -> float:
    """Return the cost of a method's epochs in units of one retraining on the retain set.

    Args:
        method: The method.
        request: What it is given.
        retraining: Passes of one retraining.
        epochs: Passes of the method.
    """
    sizes = {"forget": len(request.forget), "retain": len(request.retain)}
    sizes |= {"all": sum(sizes.values())}
    trusted = len(request.trusted) if method.budget_pass == "trusted" else 0
    size = sizes.get(method.budget_pass, trusted)
    return epochs * size * method.step_cost / (retraining * sizes["retain"])


def fit_budget(method: UnlearningMethod, request: Request, retraining: int) -> Budget:
    """Return the default budget on a user's data: at most one retraining, enough steps per pass.

    Args:
        method: The method, with the defaults of its publication.
        request: What it is given.
        retraining: Passes of one retraining.
    """
    each = compute_cost(method, request, retraining, 1)
    epochs = method.epochs
    if epochs and each > 0:
        epochs = max(1, min(epochs, math.floor((1 - method.get_extra_cost()) / each + 1e-9)))
    batch = method.batch_size
    if method.budget_pass in ("retain", "all"):
        total = len(request.forget) + len(request.retain)
        batch = min(batch, max(LEAST_BATCH, 2 ** math.floor(math.log2(max(1, total // STEPS)))))
    return Budget(epochs, batch, epochs * each + method.get_extra_cost())


def apply_budget(context: RunContext, method: Any, request: Request) -> None:
    """Set the default budget of a method on a user's model, and say what it costs; in place.

    Nothing is changed where the user gave epochs, or for models that are trained here.
    """
    config = context.job.config
    wanted = config.get("fit_budget")
    simple = isinstance(method, UnlearningMethod) and not isinstance(method, Retrain)
    if wanted is None or not simple or method.epochs == 0:
        return
    retraining = int(config["pretraining"]["epochs"])
    given = compute_cost(method, request, retraining, method.epochs) + method.get_extra_cost()
    budget = Budget(method.epochs, method.batch_size, given)
    if wanted:
        budget = fit_budget(method, request, retraining)
        changed = (budget.epochs, budget.batch_size) != (method.epochs, method.batch_size)
        method.epochs, method.batch_size = budget.epochs, budget.batch_size
        if changed:
            method.notes |= {"epochs": budget.epochs, "batch_size": budget.batch_size}
    unit = f"one retraining, {retraining} epochs (pretraining.epochs)"
    log.info(
        "budget: at most %d passes, batches of %d, about %.2g times %s%s",
        budget.epochs, budget.batch_size, budget.cost, unit,
        "" if not wanted else "; method.epochs and method.batch_size set others",
    )  # fmt: skip
    method.notes["cost"] = round(budget.cost, 4)
