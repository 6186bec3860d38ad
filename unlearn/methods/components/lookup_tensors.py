"""Tensors that a loss looks things up in, as a module: the cells of a stack have each their own."""

from torch import Tensor, nn


class BufferDict(nn.Module):
    """Holds tensors by name; a step reads them, and a hook may write to them in place."""

    def __init__(self, **tensors: Tensor) -> None:
        """Keep the tensors, of any shape, under their names."""
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor."""
        return self.get_buffer(name)
