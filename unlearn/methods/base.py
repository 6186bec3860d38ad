"""Base class of unlearning methods: a callback that prepares a model, defines a loss and finishes.

Shapes: B batch.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Fit, Forward, ImageSet, Request
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.inference import compute_accuracy
from unlearn.models.surgery import batch_norms

log = logging.getLogger(__name__)


class UnlearningMethod(L.Callback, ABC):
    """Base class of all methods; an instance is used for one unlearning run.

    Attributes:
        stackable: Whether the method can be trained in a stack. The loss must then be a pure
            function of the batch, the model, ``get_loss_modules``, the optimizer index and the
            constructor's arguments: no random numbers, no side effects, no ``item()``.
        compilable: Whether the network may be compiled; False if the loss itself computes
            gradients, which would be differentiated twice.
        mean_loss: Whether the loss is a mean over the batch, plus terms that do not depend on it, so
            that training can be spread over devices and over micro-batches. A loss that adds means over several sets must
            multiply each by its ``Batch.weight``.
        full_precision: Whether to train in 32 bits regardless of the pre-training precision.
        budget_pass: Set that one epoch of the budget iterates over: "forget", "retain", "all" or
            "trusted".
        head: Whether a localization trains the classification head "always" or as "masked".
        localizable: Whether a localization can be used; False if the network's shape changes.
        has_localization: Whether the method has a localization.
        mask: Mask of the localization; None without one.
        role: Role in comparisons: "unlearning"; "baseline", what all start from; or "reference", the
            retrained model that others are measured against.
        uses_forget_set: Whether the result depends on the forget set.
        uses_retain_set: Whether the result depends on the retain set.
        needs_trusted: Whether the method needs a trusted set; only then its request holds one.
        step_cost: Cost of one image of the budget, relative to one of plain training.
        notes: Values recorded in the run's row, JSON-serialisable.
    """

    stackable: bool = False
    compilable: bool = True
    mean_loss: bool = False
    full_precision: ClassVar[bool] = True
    budget_pass: ClassVar[str] = "retain"
    head: ClassVar[str] = "masked"
    localizable: ClassVar[bool] = True
    has_localization: ClassVar[bool] = False
    role: ClassVar[str] = "unlearning"
    uses_forget_set: ClassVar[bool] = True
    uses_retain_set: ClassVar[bool] = True
    step_cost: ClassVar[float] = 1.0
    needs_trusted: bool = False
    mask: Any = None

    def __init__(
        self,
        *,
        epochs: int,
        batch_size: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[int, int], float],
    ) -> None:
        """Store the recipe.

        Args:
            epochs: Passes over ``budget_pass``; 0: one-shot edit without training.
            batch_size: B of these passes.
            optimizer: Returns an optimizer for the given parameters.
            schedule: Learning-rate factor of (step, total steps of the budget).

        Raises:
            ValueError: If a number is out of range.
        """
        if epochs < 0:
            raise ValueError(f"method.epochs must be at least 0, got {epochs}")
        if batch_size < 1:
            raise ValueError(f"method.batch_size must be at least 1, got {batch_size}")
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.schedule = schedule
        self.notes: dict[str, Any] = {}

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the model to train, by default without extra channels; precedes ``fit``."""
        return remove_extra_channels(model)

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Check, before any computation, that the method supports the network.

        Args:
            model: The network, on any device.
            image: Example input, (B, C, H, W), on the same device.

        Raises:
            ValueError: If the network is not supported; the message lists alternatives.
        """

    def get_spread_obstacle(self, parts: int) -> str | None:
        """Return why the method cannot be trained on batches in parts; None if it can.

        ``parts``: devices times micro-batches.
        """
        if not self.mean_loss:
            return "its loss is not declared to be a mean over each batch (mean_loss)"
        smallest = min(self.batch_sizes().values())
        if smallest < 2 * parts:
            return f"each part needs two images of a batch, of {smallest} there are too few"
        return None

    def uses(self, epoch: int) -> tuple[str, ...]:
        """Return the sets in a batch of this epoch, from "forget", "retain", "all", "trusted"."""
        return (self.budget_pass,)

    @abstractmethod
    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of one step, a scalar."""

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the modules other than the model that the loss of a stackable method reads."""
        return {}

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the unlearned model, without additions made by ``prepare``."""
        return model

    def batch_sizes(self) -> dict[str, int]:
        """Return B for each name that ``uses`` may return."""
        return dict.fromkeys(("forget", "retain", "all", "trusted"), self.batch_size)

    def build_optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Return the optimizers; ``get_optimizer_index`` selects the one that steps."""
        return [self.optimizer(model.parameters())]

    def get_optimizer_index(self) -> int:
        """Return the index of the current optimizer."""
        return 0

    def is_budget_step(self) -> bool:
        """Return whether a step counts as budget, of which ``schedule`` is a function."""
        return self.get_optimizer_index() == 0

    def get_rate_factor(self, spent: int, total: int) -> float:
        """Return the learning-rate factor of a step.

        Args:
            spent: Number of earlier steps that count as budget.
            total: Their number in the whole training.
        """
        if not self.is_budget_step():
            return 1.0
        return self.schedule(min(spent, total - 1), total)

    def max_epochs(self) -> int:
        """Return the maximum number of epochs; -1: the method stops the trainer itself."""
        return self.epochs

    def get_extra_cost(self) -> float:
        """Return the cost of training other than ``epochs``, in units of one retraining."""
        return 0.0

    def needs_training(self) -> bool:
        """Return whether training is needed; called after ``prepare``."""
        return self.epochs > 0

    def get_monitored_modes(self, model: nn.Module) -> dict[str, bool]:
        """Return the modes to monitor: name to whether it is the masked mode."""
        return {"model": False}

    def measure_accuracy(self, model: nn.Module, data: ImageSet) -> float:
        """Return the accuracy on a set's given labels, in [0, 1]; count its images in the notes."""
        self.count_measured(len(data))
        return compute_accuracy(model, data)

    def count_measured(self, images: int) -> None:
        """Add to the number of images that the method's own measurements have read."""
        self.notes["measured_images"] = self.notes.get("measured_images", 0) + images

    def callbacks(self) -> list[L.Callback]:
        """Return the training callbacks; wrappers include those of the wrapped method."""
        return [self]

    def unlearn(self, model: nn.Module, request: Request, fit: Fit) -> nn.Module:
        """Return the unlearned model; ``model`` may be modified in place."""
        model = self.prepare(model, request)
        if self.needs_training():
            fit(self, model, request)
        return self.finish(model)


def find_spread_obstacle(methods: Iterable[Any], parts: int) -> str | None:
    """Return why one of several methods cannot be trained on batches in parts; None if all can."""
    for method in methods:
        find = getattr(method, "get_spread_obstacle", None)
        steps = getattr(method, "epochs", 1) > 0
        why = find(parts) if find is not None and steps else None
        if why is not None:
            return f"{type(method).__name__}: {why}"
    return None


def can_use_batch_statistics(batch_norm: str, request: Request, batch_size: int) -> bool:
    """Return whether batch norm uses the statistics of forget batches.

    True if ``batch_norm`` is "train" and batches hold at least two samples (torch raises an error
    for one value per channel).
    """
    single = min(len(request.forget), batch_size) < 2
    if batch_norm == "train" and single:
        log.warning("batch norm uses its running statistics: forget batches hold one sample")
    return batch_norm == "train" and not single


def set_batch_norm(model: nn.Module, *, train: bool) -> None:
    """Switch batch norm to batch statistics (train) or to running statistics."""
    skeletons = getattr(model, "_skeleton", ())
    for part in (model, *skeletons):
        for layer in batch_norms(part):
            layer.train(train)
