"""The linear classifier at the end of a network. Shapes: K classes, E features."""

from torch import nn


def find_head(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return the network's last linear map and its name.

    Raises:
        ValueError: If the network has none.
    """
    heads = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not heads:
        raise ValueError(
            f"{type(model).__name__} has no linear map as its head; choose method=ft_trusted"
        )
    return heads[-1]
