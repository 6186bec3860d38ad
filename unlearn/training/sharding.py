"""Weights divided among devices (FSDP), through Lightning and torch's ``fully_shard``.

Lightning's ``FSDPStrategy`` needs GPUs; its ``ModelParallelStrategy`` does the same with torch's newer
functions, on CPUs as well.
"""

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def check_sharding(model: nn.Module) -> None:
    """Check that the weights of a network can be divided.

    Raises:
        ValueError: If a parameter is a scalar, which ``fully_shard`` does not support.
    """
    scalars = [name for name, parameter in model.named_parameters() if not parameter.dim()]
    if scalars:
        raise ValueError(
            f"trainer=fsdp cannot divide the scalar parameter {scalars[0]} of the network; "
            "use trainer=ddp"
        )


def make_strategy(count: int) -> ModelParallelStrategy:
    """Return the strategy of ``count`` processes that are already running."""
    return ModelParallelStrategy(
        data_parallel_size=count, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def shard_network(model: nn.Module, mesh: Any) -> None:
    """Divide the weights in place: block by block, what is left with the whole network.

    The weights of a block are whole only while it computes. Blocks are the parts of lists and
    sequences of modules.

    Args:
        model: Contiguous, as ``fully_shard`` requires.
        mesh: The devices.
    """
    from torch.distributed.fsdp import fully_shard

    modules = list(model.modules())
    lists = [part for part in modules if isinstance(part, nn.ModuleList | nn.Sequential)]
    blocks = {id(child) for part in lists for child in part.children()}
    for part in reversed(modules):  # inner ones first
        runs = not isinstance(part, nn.ModuleList | nn.ModuleDict)
        if id(part) in blocks and runs and next(part.parameters(), None) is not None:
            fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gather_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with whole weights; all ranks must call this."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in model.state_dict().items()
    }
