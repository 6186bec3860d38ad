"""Groups of channels that must grow together, found by tracing one forward pass.

A *group* is a set of channels that must grow together, for example a residual stream: dense layers
(convolutions, linear maps) make and read it, channelwise layers (batch norm, depthwise
convolutions, activations, pooling, sums) carry it. Re-implemented idea of dependency graphs for
structural pruning (Fang et al., arXiv 2301.12900), used to add channels instead. Differs: functions
are traced at run time, so that any code is supported; unknown operations block their group.
Shapes: B batch, c channels.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from unlearn.models.expansion.channel_labels import ChannelLabel, move_label
from unlearn.models.surgery import eval_mode

CONV = nn.modules.conv._ConvNd
NORM = nn.modules.batchnorm._NormBase  # batch norm and instance norm
PARTED = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""Further norms: old and new channels are normalised apart, new ones in whole groups."""

SUMS = {"add", "add_", "sub", "mul", "mul_", "div", "__add__", "__iadd__", "__radd__", "__mul__",
        "__imul__", "__rmul__", "__sub__", "__truediv__"}  # fmt: skip


@dataclass
class ChannelGroup:
    """Channels that grow together.

    Attributes:
        width: c.
        makers: Names of the dense layers whose outputs are these channels.
        readers: Names of the dense layers that read them, with the number of inputs per channel.
        carriers: Names of the channelwise layers with weights, with their dimension of channels.
        blocked: Reason why they cannot grow; None if they can.
        step: New channels come in multiples of this number (group norms).
    """

    width: int
    makers: list[str] = field(default_factory=list)
    readers: dict[str, int] = field(default_factory=dict)
    carriers: dict[str, int] = field(default_factory=dict)
    blocked: str | None = None
    step: int = 1

    def list_dense_layers(self) -> set[str]:
        """Return the dense layers that the group touches."""
        return {*self.makers, *self.readers}


class ChannelTracer(TorchFunctionMode):
    """Trace channels while a network runs."""

    def __init__(self, model: nn.Module, batch: int, parted: bool = False) -> None:
        """Prepare tracing of ``model`` on ``batch`` images.

        Args:
            model: Any classifier.
            batch: Number of images.
            parted: Whether norms that mix channels carry them, see ``PARTED``.
        """
        super().__init__()
        self.batch = batch
        self.channelwise = (NORM, *PARTED) if parted else (NORM,)
        self.groups: list[ChannelGroup] = []
        self.parent: list[int] = []
        self.labels: dict[int, ChannelLabel] = {}
        self.kept: list[Any] = []  # keeps tensors alive, so that ids are not reused
        self.names = {m: n for n, m in model.named_modules()}
        self.made: dict[nn.Module, int] = {}
        self.inside: list[nn.Module] = []

    def find_root(self, group: int) -> int:
        """Return the representative of a joined group."""
        while self.parent[group] != group:
            group = self.parent[group]
        return group

    def add_group(self, width: int) -> int:
        """Add a group and return its number."""
        self.groups.append(ChannelGroup(width))
        self.parent.append(len(self.parent))
        return len(self.parent) - 1

    def join_groups(self, one: int, other: int) -> int:
        """Join two groups and return the representative."""
        one, other = self.find_root(one), self.find_root(other)
        if one == other:
            return one
        a, b = self.groups[one], self.groups[other]
        self.parent[other] = one
        a.makers += b.makers
        a.readers |= b.readers
        a.carriers |= b.carriers
        a.step = math.lcm(a.step, b.step)
        a.blocked = a.blocked or b.blocked
        if a.width != b.width:
            self.block_group(one, "its widths differ")
        return one

    def block_group(self, group: int, why: str) -> None:
        """Record why a group cannot grow."""
        own = self.groups[self.find_root(group)]
        own.blocked = own.blocked or why

    def get_label(self, value: Any) -> ChannelLabel | None:
        """Return the position of a group's channels in a tensor, or None."""
        return self.labels.get(id(value)) if isinstance(value, Tensor) else None

    def set_label(self, value: Tensor, label: ChannelLabel) -> None:
        """Record the position of a group's channels in a tensor."""
        self.labels[id(value)] = label
        self.kept.append(value)

    # Modules -----------------------------------------------------------------------------------

    def enter_module(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Suspend tracing until the module returns, since it is treated as a whole."""
        self.inside.append(module)

    def leave_module(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        """Apply the rule of the module."""
        self.inside.pop()
        if self.inside:
            return
        given = args[0] if args and isinstance(args[0], Tensor) else None
        if given is None or not isinstance(out, Tensor):
            return self.block_inputs(
                args, f"{self.describe_module(module)} is called in an unknown way"
            )
        depthwise = isinstance(module, CONV) and module.groups > 1
        if isinstance(module, self.channelwise) or depthwise:
            self.trace_channelwise(module, given, out)
        else:
            self.trace_dense(module, given, out)

    def describe_module(self, module: nn.Module) -> str:
        """Return a module's name and kind."""
        return f"{self.names[module]} ({type(module).__name__})"

    def trace_channelwise(self, module: nn.Module, given: Tensor, out: Tensor) -> None:
        """Record a channelwise layer; grouped convolutions block their group."""
        label = self.get_label(given)
        if label is None:
            return
        dim = label.dim if isinstance(module, nn.LayerNorm | nn.RMSNorm) else 1
        same = given.shape[dim] == out.shape[dim] == count_channels(module)
        if not same or label.dim != dim or label.times != 1:
            return self.block_group(
                label.group, f"{self.describe_module(module)} mixes groups of channels"
            )
        group = self.groups[self.find_root(label.group)]
        group.carriers.setdefault(self.names[module], dim if dim < given.ndim - 1 else -1)
        if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
            group.step = math.lcm(group.step, module.num_channels // module.num_groups)
        self.set_label(out, label)

    def trace_dense(self, module: nn.Module, given: Tensor, out: Tensor) -> None:
        """Record a layer that reads one group and makes another."""
        dim = 1 if isinstance(module, CONV) else given.ndim - 1
        label = self.get_label(given)
        name = self.names[module]
        if label is not None:
            if label.dim != dim or given.shape[0] != self.batch:
                self.block_group(
                    label.group, f"{self.describe_module(module)} reads them in an unknown way"
                )
            self.groups[self.find_root(label.group)].readers[name] = label.times
        group = self.made.get(module)
        if group is None:
            group = self.made[module] = self.add_group(
                out.shape[1 if isinstance(module, CONV) else -1]
            )
            self.groups[group].makers.append(name)
        self.set_label(out, ChannelLabel(group, 1 if isinstance(module, CONV) else out.ndim - 1))

    # Functions ---------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a function and trace the channels through it."""
        out = func(*args, **(kwargs or {}))
        if not self.inside:
            name = getattr(func, "__name__", str(func)).removeprefix("_")
            given = [t for t in pytree.tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)]
            made = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
            if made and any(self.get_label(t) for t in given):
                self.trace_function(getattr(func, "__name__", name), given, made, args)
        return out

    def trace_function(
        self, name: str, given: list[Tensor], made: list[Tensor], args: tuple[Any, ...]
    ) -> None:
        """Apply the rule of a function."""
        found = [(t, label) for t in given if (label := self.get_label(t)) is not None]
        first, label = found[0]
        out = made[0]
        moved = move_label(name, first, out, label, args) if len(made) == 1 else None
        if name in SUMS:
            return self.trace_sum(name, given, out)
        if moved is None or len(given) > 1:
            return self.block_inputs(given, f"{name} is applied to them")
        self.set_label(out, moved)

    def trace_sum(self, name: str, given: list[Tensor], out: Tensor) -> None:
        """Join groups that are added or multiplied; other operands must be equal over channels."""
        from_end = {}
        for tensor in given:
            label = self.get_label(tensor)
            if label is not None:
                from_end[id(tensor)] = (tensor.ndim - label.dim, label)
        (place, label), *others = from_end.values()
        group, times = label.group, label.times
        for other_place, other in others:
            if other_place != place or other.times != times:
                return self.block_inputs(given, f"{name} lays them across others")
            group = self.join_groups(group, other.group)
        for tensor in given:
            wide = tensor.ndim >= place and tensor.shape[tensor.ndim - place] > 1
            if self.get_label(tensor) is None and wide:
                return self.block_inputs(given, f"{name} joins them to values that cannot grow")
        self.set_label(out, ChannelLabel(group, out.ndim - place, times))

    def block_inputs(self, given: Any, why: str) -> None:
        """Block all groups of the tensors in ``given``."""
        for tensor in pytree.tree_leaves(given):
            label = self.get_label(tensor)
            if label is not None:
                self.block_group(label.group, why)


def count_channels(module: nn.Module) -> int:
    """Return c of a norm or a depthwise convolution; 0 of a norm over several dimensions."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        shape = tuple(module.normalized_shape)
        return shape[0] if len(shape) == 1 else 0
    name = "num_channels" if isinstance(module, nn.GroupNorm) else "num_features"
    return int(getattr(module, "groups" if isinstance(module, CONV) else name))


@contextmanager
def _attach_hooks(model: nn.Module, follower: ChannelTracer) -> Iterator[None]:
    handles = []
    for module in model.modules():
        if isinstance(module, (CONV, nn.Linear, *follower.channelwise)):
            handles += [
                module.register_forward_pre_hook(follower.enter_module),
                module.register_forward_hook(follower.leave_module),
            ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_groups(model: nn.Module, image: Tensor, *, parted: bool = False) -> list[ChannelGroup]:
    """Return the groups of channels of a network, in order of creation.

    Args:
        model: Any classifier.
        image: Example input, (B, C, H, W), B at least 2.
        parted: Whether norms that mix channels carry them, see ``PARTED``.
    """
    follower = ChannelTracer(model, len(image), parted)
    with _attach_hooks(model, follower), eval_mode(model), follower:
        out = model(image)
    follower.block_inputs(out, "they are the outputs")
    found = [g for i, g in enumerate(follower.groups) if follower.find_root(i) == i]
    for group in found:
        if not group.readers:
            group.blocked = group.blocked or "no layer that is known reads them"
    return found
