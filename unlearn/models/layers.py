"""The layers of a network as the literature counts them: its convolutions and linear maps."""

from torch import nn

COUNTED = (nn.modules.conv._ConvNd, nn.Linear)


def group_modules_by_layer(model: nn.Module) -> list[list[nn.Module]]:
    """Return the modules of every layer, from input to output, in the order of registration.

    A layer is one convolution or linear map, with the norms that follow it and with all other
    modules between the previous layer and itself: containers, activations, embeddings. Every module
    is in exactly one layer; modules after the last convolution or linear map belong to that layer.

    Raises:
        ValueError: If the network has neither convolutions nor linear maps.
    """
    found: list[list[nn.Module]] = []
    waiting: list[nn.Module] = []
    seen: set[nn.Module] = set()

    def walk_modules(module: nn.Module) -> None:
        nonlocal waiting
        if module in seen:
            return
        seen.add(module)
        if isinstance(module, COUNTED):
            found.append([*waiting, *module.modules()])
            waiting = []
            return
        (found[-1] if found and _is_norm(module) else waiting).append(module)
        for child in module.children():
            walk_modules(child)

    walk_modules(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no convolution and no linear map")
    found[-1].extend(waiting)
    return found


def _is_norm(module: nn.Module) -> bool:
    # By name, to include user-defined norms.
    return "norm" in type(module).__name__.lower() and not any(True for _ in module.children())


def get_trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require gradients, by name, in the network's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
