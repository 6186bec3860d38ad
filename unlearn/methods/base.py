"""What a method is: a Lightning callback that prepares a model, gives a loss, and finishes the model.

Shapes: B batch.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Fit, Forward, Request
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.surgery import batch_norms

log = logging.getLogger(__name__)


class UnlearningMethod(L.Callback, ABC):
    """Base of all methods; one instance serves one unlearning.

    Attributes:
        stackable: Many cells may be trained in one program. The loss is then a pure function of the
            batch, the model, the modules that ``reads`` names, the phase and constructor's values:
            it draws nothing, writes nothing, and reads no value of a tensor back.
        compilable: The network may run through torch.compile; not if the loss takes gradients of
            its own, which would be differentiated again.
        full_precision: Train in 32 bits whatever the pre-training precision is.
        budget_pass: What one epoch of the budget passes over: "forget", "retain" or "all".
        head: Under a localization the classification head moves "always", or as it is "masked".
        localizable: A localization may hold part of the network; not if its shape changes.
        notes: Facts of the run for its row, JSON values.
    """

    stackable: bool = False
    compilable: bool = True
    full_precision: ClassVar[bool] = True
    budget_pass: ClassVar[str] = "retain"
    head: ClassVar[str] = "masked"
    localizable: ClassVar[bool] = True
    has_localization: ClassVar[bool] = False
    mask: Any = None

    def __init__(
        self,
        *,
        epochs: int,
        batch_size: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[int, int], float],
    ) -> None:
        """Keep the recipe.

        Args:
            epochs: Passes over ``budget_pass``; 0: a one-shot edit, nothing is trained.
            batch_size: B of the budget's passes.
            optimizer: Called with the parameters.
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
        """Return the model to train; before the optimizer exists. Default: without extra channels."""
        return remove_extra_channels(model)

    def check_model(self, model: nn.Module, image: Tensor) -> None:
        """Refuse, before any work, a network that the method cannot work on.

        Args:
            model: The network, on any device.
            image: Input for it, (B, C, H, W), on its device.

        Raises:
            ValueError: Naming what is wrong with it, and what remains possible.
        """

    def uses(self, epoch: int) -> tuple[str, ...]:
        """Return what a batch of this epoch holds, of "forget", "retain", "all"."""
        return (self.budget_pass,)

    @abstractmethod
    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of one step, a scalar."""

    def get_loss_modules(self) -> dict[str, nn.Module]:
        """Return the modules besides the model that the loss of a stackable method consults."""
        return {}

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the unlearned model, without what ``prepare`` added."""
        return model

    def batch_sizes(self) -> dict[str, int]:
        """Return B for each name that ``uses`` may return."""
        return dict.fromkeys(("forget", "retain", "all"), self.batch_size)

    def build_optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Return the optimizers; ``phase`` says which one steps."""
        return [self.optimizer(model.parameters())]

    def get_optimizer_index(self) -> int:
        """Return the index of the optimizer that steps now; the first one spends the budget."""
        return 0

    def max_epochs(self) -> int:
        """Return the most passes of any kind; -1: the method stops the trainer itself."""
        return self.epochs

    def needs_training(self) -> bool:
        """Say, after ``prepare``, whether there is anything to train."""
        return self.epochs > 0

    def get_monitored_modes(self, model: nn.Module) -> dict[str, bool]:
        """Return what a monitor may look at: name to whether it is the masked mode."""
        return {"model": False}

    def callbacks(self) -> list[L.Callback]:
        """Return the callbacks of the training; wrappers add the wrapped."""
        return [self]

    def unlearn(self, model: nn.Module, request: Request, fit: Fit) -> nn.Module:
        """Return the unlearned model; ``model`` belongs to the method."""
        model = self.prepare(model, request)
        if self.needs_training():
            fit(self, model, request)
        return self.finish(model)


def can_use_batch_statistics(batch_norm: str, request: Request, batch_size: int) -> bool:
    """Say whether batch norm may use the statistics of forget batches, as ``batch_norm`` wants.

    One sample alone has none worth the name (torch refuses one value per channel).
    """
    single = min(len(request.forget), batch_size) < 2
    if batch_norm == "train" and single:
        log.warning("batch norm keeps its running statistics: forget batches hold one sample")
    return batch_norm == "train" and not single


def set_batch_norm(model: nn.Module, *, train: bool) -> None:
    """Let batch norm use batch statistics (and update its own) or its running statistics."""
    skeletons = getattr(model, "_skeleton", ())
    for part in (model, *skeletons):
        for layer in batch_norms(part):
            layer.train(train)
