"""RUM: split the forget set by memorization, unlearn the parts in order (arXiv 2406.01257). Re-implemented.

Differs: each part starts from the previous part's model in memory; "shuffle" draws its parts once.
"""

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unlearn.core.types import Fit, Request, Unlearner, join_sets
from unlearn.methods.base import find_spread_obstacle
from unlearn.scoring.memorization.partition import Partition

log = logging.getLogger(__name__)

MODES = ("vanilla", "shuffle", "refined", "meta", "auto")
PER_PART_MODES = ("meta", "auto")  # one method per part
RETAIN_MODES = ("cumulative", "final")


def build_part_request(request: Request, now: Tensor, later: Tensor) -> Request:
    """Return the request of one part.

    Args:
        request: The full request.
        now: Positions in the forget set to unlearn in this step.
        later: Positions in the forget set that belong to the retain set in this step.
    """
    retain = join_sets(request.retain, request.forget.rows(later)) if len(later) else request.retain
    return replace(request, forget=request.forget.rows(now), retain=retain)


class RUM:
    """Unlearn the parts of a partition in order, each with its own method.

    Attributes:
        role: Role in comparisons, see ``UnlearningMethod``.
        uses_forget_set: Whether the result depends on the forget set.
        uses_retain_set: Whether the result depends on the retain set.
        needs_trusted: Whether one of the methods needs a trusted set; the others do not get it.
        notes: Values recorded in the run's row, JSON-serialisable.
    """

    role: ClassVar[str] = "unlearning"
    uses_forget_set: ClassVar[bool] = True
    uses_retain_set: ClassVar[bool] = True
    needs_trusted: bool = False

    def __init__(
        self,
        *,
        mode: str,
        base: Unlearner,
        steps: Mapping[str, Unlearner],
        partition: Partition,
        shuffled: Partition,
        order: list[str],
        retain: str,
    ) -> None:
        """Store the methods.

        Args:
            mode: "vanilla": ``base``, all at once; "shuffle": ``base`` on random parts; "refined":
                ``base`` on the partition's parts; "meta": ``steps`` on these parts; "auto": as
                "meta", with ``steps`` selected by the runner.
            base: One method for all parts.
            steps: Method by part.
            partition: Parts by memorization.
            shuffled: Parts at random.
            order: Names of the parts in the order of unlearning.
            retain: Later parts belong to the retain set ("cumulative") or to neither set ("final").

        Raises:
            ValueError: If an option is unknown, or a part has no method.
        """
        if mode not in MODES:
            raise ValueError(f"method.mode must be one of {', '.join(MODES)}, got {mode}")
        if retain not in RETAIN_MODES:
            raise ValueError(f"method.retain must be cumulative or final, got {retain}")
        if mode in PER_PART_MODES and set(order) - set(steps):
            raise ValueError(f"method.order {order} names parts without a method in method.steps")
        self.mode = mode
        self.base = base
        self.steps = dict(steps)
        self.partition = shuffled if mode == "shuffle" else partition
        self.order = list(order)
        used = self.steps.values() if mode in PER_PART_MODES else (base,)
        self.needs_trusted = any(getattr(method, "needs_trusted", False) for method in used)
        self.cumulative = retain == "cumulative"
        self.notes: dict[str, Any] = {"mode": mode, "retain": retain}

    def get_spread_obstacle(self, parts: int) -> str | None:
        """Return why one of the methods cannot be trained on batches in parts; None if all can."""
        used = list(self.steps.values()) if self.mode in PER_PART_MODES else [self.base]
        return find_spread_obstacle(used, parts)

    def get_monitored_modes(self, model: nn.Module) -> dict[str, bool]:
        """Return the modes to monitor: the model, which is shared by all parts."""
        return {"model": False}

    def unlearn(self, model: nn.Module, request: Request, fit: Fit) -> nn.Module:
        """Return the model after the last part.

        Raises:
            ValueError: If ``order`` does not match the partition's parts.
        """
        if self.mode == "vanilla":
            return self._unlearn_part("all", self.base, model, request, fit)
        parts = self.partition(model, request.without_trusted())
        if sorted(parts) != sorted(self.order):
            raise ValueError(f"method.order must hold the parts {list(parts)}, got {self.order}")
        self.notes["sizes"] = [len(parts[name]) for name in self.order]
        for done, name in enumerate(self.order):
            method = self.steps[name] if self.mode in PER_PART_MODES else self.base
            waiting = [parts[n] for n in self.order[done + 1 :]] if self.cumulative else []
            later = torch.cat(waiting) if waiting else torch.tensor([], dtype=torch.long)
            own = build_part_request(request, parts[name], later)
            model = self._unlearn_part(name, method, model, own, fit)
        return model

    def _unlearn_part(
        self, name: str, method: Unlearner, model: nn.Module, request: Request, fit: Fit
    ) -> nn.Module:
        method = copy.deepcopy(method)  # an instance is used for one unlearning run
        called = type(method).__name__
        log.info("unlearning part %s (%d samples) with %s", name, len(request.forget), called)
        self.notes["methods"] = [*self.notes.get("methods", []), called]
        if not getattr(method, "needs_trusted", False):
            request = request.without_trusted()
        model = method.unlearn(model, request, fit)
        self.notes |= {f"{name}/{k}": v for k, v in getattr(method, "notes", {}).items()}
        return model
