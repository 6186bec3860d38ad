"""Hook modules of layers, which make, carry or read the extra channels of a grown network.

Source: the expansion of REM (arXiv 2505.17730, step 3.1) for networks without support for it.
Shapes: B batch, c old channels, m new channels.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from unlearn.models.expansion.channel_groups import CONV, NORM, PARTED, count_channels
from unlearn.models.surgery import eval_mode

NORMS = (NORM, *PARTED)


class GateState:
    """Gates of the current forward pass, shared by all hook modules; None in base mode."""

    def __init__(self) -> None:
        """Initialise in base mode."""
        self.now: list[Tensor] | None = None


def _copy_plain(layer: nn.Module) -> Any:
    """Return a copy of a layer without hooks, and without weight or spectral norm."""
    new: Any = copy.deepcopy(layer)
    if is_parametrized(layer):  # removing them by torch would change the class of the layer, too
        new.__class__ = type_before_parametrizations(layer)
        for name in new._modules.pop("parametrizations"):
            new.register_parameter(name, nn.Parameter(getattr(layer, name).detach().clone()))
    for hook in list(new._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm | SpectralNorm):
            hook.remove(new)
            new._state_dict_hooks.clear()
            new._load_state_dict_pre_hooks.clear()
    new._forward_hooks.clear()
    new._forward_pre_hooks.clear()
    return new


def _make_extra_norm(layer: nn.Module, channels: int) -> nn.Module:
    """Return a new norm of the same kind for other channels, in whole groups."""
    new, old = _copy_plain(layer), count_channels(layer)
    if isinstance(new, nn.GroupNorm):
        if new.num_groups > 1:
            new.num_groups = channels * new.num_groups // new.num_channels
        new.num_channels = channels
    elif isinstance(new, nn.LayerNorm | nn.RMSNorm):
        new.normalized_shape = (channels,)
    else:
        new.num_features = channels
    for name, value in [*new._parameters.items(), *new._buffers.items()]:
        if value is not None and value.shape == (old,):
            start = float(name in ("weight", "running_var"))
            fresh = torch.full((channels,), start, device=value.device, dtype=value.dtype)
            setattr(new, name, nn.Parameter(fresh) if name in new._parameters else fresh)
    return new


def _make_extra_layer(layer: nn.Module, inputs: int, outputs: int, *, bias: bool) -> nn.Module:
    """Return a new layer of the same kind with other widths."""
    if isinstance(layer, NORMS):
        return _make_extra_norm(layer, outputs)
    new, first = _copy_plain(layer), layer.weight
    assert isinstance(first, Tensor)
    options: dict[str, Any] = {"device": first.device, "dtype": first.dtype}
    if isinstance(layer, CONV):
        new.in_channels, new.out_channels = inputs, outputs
        new.groups = outputs if layer.groups > 1 else 1
        inputs //= new.groups
    else:
        new.in_features, new.out_features = inputs, outputs
    for name, value in list(new._parameters.items()):  # such as the gain of a scaled convolution
        if name not in ("weight", "bias") and value is not None and len(value) == len(first):
            fresh = torch.ones(outputs, *value.shape[1:], **options)
            setattr(new, name, nn.Parameter(fresh * value.detach().mean()))
    new.weight = nn.Parameter(torch.empty(outputs, inputs, *first.shape[2:], **options))
    new.bias = nn.Parameter(torch.zeros(outputs, **options)) if bias else None
    nn.init.kaiming_uniform_(new.weight, a=5**0.5)
    return new


class ExtraChannelHook(nn.Module):
    """The new channels' part of one layer, run by hooks before and after it."""

    def __init__(
        self,
        layer: nn.Module,
        gates: GateState,
        *,
        reads: tuple[int, int, int] | None,
        makes: tuple[int, int] | None,
        dim: int | None = None,
    ) -> None:
        """Build the additional layers.

        Args:
            layer: A convolution, linear map or norm.
            gates: Gates of the network.
            reads: Number of the group that the layer reads, its m, and inputs per channel.
            makes: Number of the group that the layer makes, and its m.
            dim: Dimension of the channels; None: that of the layer's kind.
        """
        super().__init__()
        self.gates = gates
        usual = -1 if isinstance(layer, nn.Linear) else 1
        self.dim = usual if dim is None else dim
        self.group, more, self.times = reads or (None, 0, 1)
        more *= self.times
        self.carries = isinstance(layer, NORMS) or (isinstance(layer, CONV) and layer.groups > 1)
        self.into = self.new = None
        self.held: tuple[Tensor, Tensor] | None = None
        if self.carries:
            self.old = count_channels(layer)
            bias = getattr(layer, "bias", None) is not None
            self.new = _make_extra_layer(layer, more, more, bias=bias)
            return
        self.old, out = layer.weight.shape[1], layer.weight.shape[0]  # type: ignore[union-attr]
        if more:
            self.into = _make_extra_layer(layer, more, int(out), bias=False)
        if makes is not None:
            self.new = _make_extra_layer(
                layer, int(self.old) + more, makes[1], bias=layer.bias is not None
            )

    def split_input(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Split the new channels off the layer's input; apply the gates if the layer mixes them."""
        if self.gates.now is None:
            return None
        given, *rest = args
        if given.shape[self.dim] == self.old:
            self.held = (given, given[:0])
            return None
        old, new = given.split([self.old, given.shape[self.dim] - self.old], self.dim)
        if not self.carries and self.group is not None:
            gate = self.gates.now[self.group].to(new.dtype).repeat_interleave(self.times, 1)
            ones = [1] * (new.ndim - 2)
            shape = (len(gate), *ones, -1) if self.dim == -1 else (len(gate), -1, *ones)
            new = new * gate.view(shape)
        self.held = (old, new)
        return (old, *rest)

    def add_output(self, layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
        """Add the contribution of new channels to old ones, and append the new output channels."""
        if self.gates.now is None or self.held is None:
            return None
        (old, new), self.held = self.held, None
        if self.carries:
            assert self.new is not None
            return torch.cat([out, self.new(new)], self.dim) if len(new) else None
        if self.into is not None and len(new):
            out = out + self.into(new)
        if self.new is not None:
            whole = torch.cat([old, new], self.dim) if len(new) else old
            out = torch.cat([out, self.new(whole)], self.dim)
        return out


class IdleLayerHook:
    """Hook of a layer that does not run in eval mode, such as of an auxiliary output.

    Its outputs are not used here, so it reads the old channels alone.
    """

    def __init__(self, gates: GateState) -> None:
        """Store the gates of the network."""
        self.gates = gates

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return the arguments with the input's old channels."""
        if self.gates.now is None or not args:
            return None
        dim = -1 if isinstance(layer, nn.Linear) else 1
        return (args[0].narrow(dim, 0, _count_inputs(layer)), *args[1:])


def _count_inputs(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return layer.in_channels if isinstance(layer, CONV) else count_channels(layer)


def list_idle_layers(network: nn.Module, image: Tensor) -> list[str]:
    """Return the names of the convolutions, linear maps and batch norms that do not run in eval mode.

    Args:
        network: Any classifier.
        image: Example input, (B, C, H, W), on its device.
    """
    kinds = (CONV, nn.Linear, NORM)
    layers = {name: m for name, m in network.named_modules() if isinstance(m, kinds)}
    run: set[nn.Module] = set()
    handles = [m.register_forward_pre_hook(lambda m, _: run.add(m)) for m in layers.values()]
    try:
        with eval_mode(network):
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, layer in layers.items() if layer not in run]
