"""The layers of a network in execution order, and its head.

Found by a forward pass, not by registration order. Differs: arXiv 2412.02432 states no rule; ours
is that of ``group_by_layer``. Shapes: B batch, C H W image.
"""

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.models.layers import COUNTED, get_trainable_parameters
from unlearn.models.surgery import eval_mode


@dataclass
class _LayerGroup:
    """A layer under construction."""

    names: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    opened_by_norm: bool = False


def example_images(request: Request) -> Tensor:
    """Return up to two images of the forget set as network input, (B, C, H, W)."""
    few = torch.arange(min(2, len(request.forget)), device=request.forget.label.device)
    return next(request.forget.rows(few).batches()).image


def list_executed_modules(model: nn.Module, image: Tensor) -> list[tuple[str, nn.Module]]:
    """Return the modules that compute something themselves, in the order of their first call.

    These are modules without children, and modules with their own parameters.
    """
    found: dict[str, nn.Module] = {}
    handles = []
    for name, module in model.named_modules():
        inner = any(True for _ in module.children()) and not isinstance(module, COUNTED)
        if inner and not module._parameters:
            continue

        def note_module(module: nn.Module, _: object, name: str = name) -> None:
            found.setdefault(name, module)

        handles.append(module.register_forward_pre_hook(note_module))
    try:
        with eval_mode(model):
            model(image.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return list(found.items())


def _is_layer_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm | nn.RMSNorm)


def group_by_layer(model: nn.Module, image: Tensor) -> dict[str, list[str]]:
    """Return the names of the parameters of each layer, by layer name, from input to output.

    A convolution or linear map starts a layer, and the modules that run after it (its norm) belong
    to it. A layer norm precedes its layer: it starts a layer that ends at the next layer norm. The
    layers of a transformer are then the patch embedding with tokens, the attention and feed-forward
    parts of every block, and the head.

    Args:
        model: Any network.
        image: Example input, (B, C, H, W).

    Raises:
        ValueError: If a parameter belongs to no executed module.
    """
    groups: list[_LayerGroup] = []
    waiting: list[str] = []
    placed: set[str] = set()
    place: dict[str, int] = {}
    wanted = get_trainable_parameters(model)
    for path, module in list_executed_modules(model, image):
        own = [f"{path}.{n}" if path else n for n, p in module.named_parameters(recurse=False)]
        own = [n for n in own if n in wanted and n not in placed]
        placed.update(own)
        norm, counted = _is_layer_norm(module), isinstance(module, COUNTED)
        if norm or (counted and not (groups and groups[-1].opened_by_norm)):
            groups.append(_LayerGroup(waiting, opened_by_norm=norm))
            waiting = []
        place[path] = max(0, len(groups) - 1)
        if groups:
            groups[-1].names += own
            groups[-1].titles += [path] if counted else []
        else:
            waiting += own
    if groups and any(n not in placed for n in wanted):
        late = _list_training_parameters(model, image) - placed
        groups[-1].names += [n for n in wanted if n in late]  # auxiliary outputs: the last layer
        placed |= late
    for name in [n for n in wanted if n not in placed]:  # used by a parent without calling forward
        parents = [p for p in place if name.startswith(f"{p}." if p else "")]
        if not parents or not groups:
            raise ValueError(f"'{name}' belongs to no layer that {type(model).__name__} runs")
        groups[place[max(parents, key=len)]].names.append(name)
    return {(g.titles or g.names)[0]: g.names for g in groups if g.names}


def _list_training_parameters(model: nn.Module, image: Tensor) -> set[str]:
    """Return the names of the parameters of layers that run in train mode; the model does not change."""
    own = copy.deepcopy(model).train()
    run: set[str] = set()
    for path, module in own.named_modules():
        names = [f"{path}.{n}" for n, _ in module.named_parameters(recurse=False)]
        if isinstance(module, COUNTED):
            module.register_forward_pre_hook(lambda _, __, names=names: run.update(names))
    devices = [image.device] if image.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        own(image.to(next(own.parameters()).device))
    return run


def group_by_block(model: nn.Module, image: Tensor) -> dict[str, list[str]]:
    """Return the names of the parameters of each block: the stem, every residual block, the head.

    A block is the outermost module that is not a plain container; a layer outside any block is its
    own block.

    Args:
        model: Any network.
        image: Input to run, (B, C, H, W).
    """
    plain = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    modules = dict(model.named_modules())
    out: dict[str, list[str]] = {}
    for title, names in group_by_layer(model, image).items():
        parts = title.split(".")
        above = (".".join(parts[:i]) for i in range(1, len(parts)))
        block = next((p for p in above if not isinstance(modules[p], plain)), title)
        out.setdefault(block, []).extend(names)
    return out


def list_head_parameters(model: nn.Module, image: Tensor) -> list[str]:
    """Return the parameters of the classification head: the last linear map, and its layer norm.

    Args:
        model: Any network.
        image: Input to run, (B, C, H, W).

    Raises:
        ValueError: If the network has neither convolutions nor linear maps.
    """
    run = [
        (n, m)
        for n, m in list_executed_modules(model, image)
        if not any(True for _ in m.children()) or isinstance(m, COUNTED)
    ]
    last = max((i for i, (_, m) in enumerate(run) if isinstance(m, COUNTED)), default=None)
    if last is None:
        raise ValueError(f"{type(model).__name__} has no linear map that could be its head")
    first = last - 1 if last and _is_layer_norm(run[last - 1][1]) else last
    return [
        f"{path}.{name}" if path else name
        for path, module in run[first : last + 1]
        for name, _ in module.named_parameters(recurse=isinstance(module, COUNTED))
    ]
