"""Tensors that a loss reads, as a module, so that each cell of a stack has its own."""

from torch import Tensor, nn


class BufferDict(nn.Module):
    """Buffers by name; steps read them, hooks may write to them in place."""

    def __init__(self, **tensors: Tensor) -> None:
        """Register tensors of any shape as buffers under their names."""
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def __getitem__(self, name: str) -> Tensor:
        """Return the buffer ``name``."""
        return self.get_buffer(name)
