"""Unlearning by several processes: each steps on the mean gradient of all of them; micro-batches.

All ranks run the same program on the same sets: a rank differs from the others only in its part of
every batch. Lightning's DDP would also need every parameter in every loss, which does not hold for
methods that freeze parameters or change them between phases.
"""

from collections.abc import Iterable, Mapping

import lightning.pytorch as L
import torch
from torch import Tensor, distributed, nn

from unlearn.core.types import Batch
from unlearn.training.distributed import Rank


def split_batch(batch: Mapping[str, Batch], parts: int) -> list[Mapping[str, Batch]]:
    """Return micro-batches with a part of each set; fewer than ``parts`` for small sets.

    Each holds at least two images of each set where the batch does, as batch norm needs.
    """
    count = min(parts, *(len(one.label) // 2 for one in batch.values()))
    if count < 2:
        return [batch]
    pieces = [one.split(count) for one in batch.values()]
    return [dict(zip(batch, some, strict=True)) for some in zip(*pieces, strict=True)]


def weigh_loss(loss: Tensor, batch: Mapping[str, Batch]) -> Tensor:
    """Return the loss of a part of which the mean over parts is the loss of the whole batch.

    With several sets in a batch, the method itself has multiplied their means by their weights.
    """
    return loss * next(iter(batch.values())).weight if len(batch) == 1 else loss


def average_gradients(parameters: Iterable[nn.Parameter], rank: Rank) -> None:
    """Replace the gradients by their mean over all ranks."""
    found = [p.grad for p in parameters if p.grad is not None]
    if not found:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in found])
    distributed.all_reduce(flat)
    flat /= rank.count
    parts = flat.split([gradient.numel() for gradient in found])
    for gradient, part in zip(found, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def average_over_ranks(value: Tensor, rank: Rank) -> Tensor:
    """Return the mean of a tensor over all ranks."""
    value = value.detach().clone()
    distributed.all_reduce(value)
    return value / rank.count


def sum_over_ranks(value: int, device: torch.device) -> int:
    """Return the sum of a number over all ranks."""
    total = torch.tensor(value, device=device)
    distributed.all_reduce(total)
    return int(total)


@torch.no_grad()
def copy_from_first_rank(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by those of rank 0."""
    for tensor in tensors:
        whole = tensor.contiguous()
        distributed.broadcast(whole, src=0)
        if whole is not tensor:
            tensor.copy_(whole)


class SharedStatistics(L.Callback):
    """Give all ranks the running statistics of rank 0 before anything is measured or decided."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the weights, too: rounding before the training may differ."""
        model: nn.Module = pl_module.model  # type: ignore[assignment]
        copy_from_first_rank([p.data for p in model.parameters()])
        copy_from_first_rank(model.buffers())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the statistics."""
        copy_from_first_rank(pl_module.model.buffers())  # type: ignore[union-attr,operator]
