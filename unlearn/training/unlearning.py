"""Unlearning with Lightning, using the loss, phases and stopping rule of a method.

Shapes: B batch.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from unlearn.core.types import Batch, Request
from unlearn.methods.base import UnlearningMethod
from unlearn.training.callbacks import EpochLog, EpochOrder
from unlearn.training.distributed import SINGLE_PROCESS, Rank
from unlearn.training.engine import Engine, LeanModule, silence_lightning, use_torch_seed
from unlearn.training.loader import Augmentation, DeferredBatches, RequestLoader
from unlearn.training.optimizers import use_fast_step
from unlearn.training.spreading import (
    SharedStatistics,
    average_gradients,
    average_over_ranks,
    copy_from_first_rank,
    split_batch,
    sum_over_ranks,
    weigh_loss,
)


class UnlearningModule(LeanModule):
    """Step the method's current optimizer on the method's loss."""

    def __init__(
        self,
        model: nn.Module,
        method: UnlearningMethod,
        total_steps: int,
        log: EpochLog,
        rank: Rank = SINGLE_PROCESS,
        parts: int = 1,
    ) -> None:
        """Store the model, the method, its budget ``total_steps``, the log and the rank.

        ``parts``: micro-batches that the gradient of a batch is accumulated over.
        """
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.method = (method,)  # in a tuple, so that its networks are not registered
        self.total_steps = max(1, total_steps)
        self.spent = 0
        self.rank, self.parts = rank, parts
        self.epoch_log = log
        self._compiled: tuple[Callable[..., Tensor]] = (model,)
        self._rates: list[list[float]] = []
        self.own: list[torch.optim.Optimizer] = []

    def configure_optimizers(self) -> Any:
        """Return the method's optimizers."""
        made = [
            use_fast_step(optimizer) for optimizer in self.method[0].build_optimizers(self.model)
        ]
        self._rates = [[g["lr"] for g in o.param_groups] for o in made]
        self.own = made
        return made

    def forward(self, image: Tensor, index: Tensor | None = None) -> Tensor:
        """Return float32 logits (B, K); ``index`` selects masks of an expanded model."""
        return self._compiled[0](image, *(() if index is None else (index,))).float()

    def training_step(self, batch: Mapping[str, Batch], batch_idx: int) -> None:
        """Perform one optimizer step."""
        phase = self.begin_step()
        parts = split_batch(batch, self.parts)
        losses = []
        for number, part in enumerate(parts):
            loss = self.method[0].loss(self.forward, part)
            if len(parts) > 1 or self.rank != SINGLE_PROCESS:
                loss = weigh_loss(loss, part) / len(parts)
            if number == 0:
                self.clear_gradients()
            self.manual_backward(loss)
            losses.append(loss.detach())
        if self.rank != SINGLE_PROCESS:
            average_gradients(self.model.parameters(), self.rank)
        wrapped = self.optimizers()
        (wrapped[phase] if isinstance(wrapped, list) else wrapped).step()
        self.count_step(sum(losses[1:], losses[0]), batch)

    def begin_step(self) -> int:
        """Set the learning rate of a step and count it; return the index of its optimizer."""
        method = self.method[0]
        phase = min(method.get_optimizer_index(), len(self.own) - 1)
        counts = method.is_budget_step()
        factor = method.get_rate_factor(self.spent, self.total_steps)
        for group, rate in zip(self.own[phase].param_groups, self._rates[phase], strict=True):
            group["lr"] = rate * factor
        self.spent += counts
        return phase

    def clear_gradients(self) -> None:
        """Clear the gradients of all optimizers."""
        for optimizer in self.own:
            optimizer.zero_grad()

    def count_step(self, loss: Tensor, batch: Mapping[str, Batch]) -> None:
        """Log a step's loss and number of images."""
        self.epoch_log.add_step(loss, sum(len(part.label) for part in batch.values()))

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Return the batch, made on the device by the loader's function."""
        return batch()


class LightningFit:
    """The ``Fit`` that the runner passes to methods.

    Attributes:
        images_seen: Number of images in all training batches so far, including repetitions.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        augment: Augmentation | None,
        seed: int,
        loggers: Sequence[Logger] = (),
        callbacks: Sequence[L.Callback] = (),
        title: str = "unlearning",
        rank: Rank = SINGLE_PROCESS,
    ) -> None:
        """Store the options that do not depend on the method.

        Args:
            engine: Device, precision and trainer options.
            augment: Batch augmentation.
            seed: Seed of order, augmentation and random layers.
            loggers: Loggers of the curves.
            callbacks: Additional callbacks, for example the evaluator's monitor.
            title: Title of the progress bar.
            rank: Rank of this process; all ranks of the group train together.
        """
        self.rank = rank
        self.engine = engine
        self.augment = augment
        self.seed = seed
        self.loggers = loggers
        self.callbacks = callbacks
        self.title = title
        self.images_seen = 0

    def __call__(self, method: UnlearningMethod, model: nn.Module, request: Request) -> None:
        """Train ``model`` in place.

        Raises:
            CollapsedError: If the loss is not finite.
        """
        engine = self.engine
        loader, module, callbacks = self.build_parts(method, model, request)
        if method.compilable:
            module._compiled = (engine.compile_if_enabled(model),)
        trainer = engine.build_trainer(
            max_epochs=method.max_epochs(),
            precision=precision_of(method, engine),
            callbacks=callbacks,
            loggers=self.loggers,
            title=self.title,
            total=method.max_epochs() if method.max_epochs() > 0 else None,
            rank=self.rank,
            joins=False,
        )
        try:
            with use_torch_seed(self.seed + self.rank.number), silence_lightning():
                trainer.fit(module, train_dataloaders=DeferredBatches(loader))
        finally:
            self.images_seen += module.epoch_log.images
        if self.rank != SINGLE_PROCESS:
            copy_from_first_rank(model.buffers())
            others = sum_over_ranks(module.epoch_log.images, engine.device)
            self.images_seen += others - module.epoch_log.images
        engine.place_model(model).eval()  # Lightning moves it to the CPU

    def build_parts(
        self, method: UnlearningMethod, model: nn.Module, request: Request
    ) -> tuple[RequestLoader, UnlearningModule, list[L.Callback]]:
        """Return the parts of a training: the loader, the module and the callbacks."""
        for network in (model, *method.get_loss_modules().values()):
            self.engine.place_model(network)
        model.train()
        loader = RequestLoader(
            request,
            uses=method.uses,
            batch_sizes=method.batch_sizes,
            augment=self.augment,
            seed=self.seed,
            device=self.engine.device,
            rank=self.rank,
        )
        log = EpochLog(self.loggers)
        total = method.epochs * loader.count_steps(method.budget_pass, method.batch_size)
        module = UnlearningModule(model, method, total, log, self.rank, self.engine.accumulate)
        first: list[L.Callback] = [EpochOrder(loader)]
        if self.rank != SINGLE_PROCESS:
            log.average = functools.partial(average_over_ranks, rank=self.rank)
            first.append(SharedStatistics())
        return loader, module, [*first, *method.callbacks(), log, *self.callbacks]


def precision_of(method: UnlearningMethod, engine: Engine) -> Any:
    """Return the training precision of a method as named by Lightning."""
    return engine.unlearning_precision if method.full_precision else engine.resolved_precision()
