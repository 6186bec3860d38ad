"""Extra channels for networks of any class, added by hooks on their layers.

Source: the expansion of REM (arXiv 2505.17730, step 3.1) for networks without support for it. Every
layer that touches a grown group gets a hook module that makes, carries or reads the new channels;
the network's own code is unchanged and sees wider tensors.
Shapes: B batch, c old channels, m new channels, K classes.
"""

import copy
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import CheckpointError

from unlearn.models.expansion.channel_groups import ChannelGroup, find_groups
from unlearn.models.expansion.expanded import Expanded, expand_network, is_native
from unlearn.models.expansion.layer_hooks import (
    ExtraChannelHook,
    GateState,
    IdleLayerHook,
    list_idle_layers,
)
from unlearn.models.surgery import eval_mode

log = logging.getLogger(__name__)

REMAINING = (
    "possible without new channels: method.expand=false, or any other method that does not expand "
    "the network (npo, neggrad_plus, scrub, finetune, ...)"
)


class Grown(Expanded):
    """A network of any class with extra channels: the same two modes as ``Expanded``."""

    def __init__(
        self,
        network: nn.Module,
        chosen: Sequence[ChannelGroup],
        *,
        ratio: float,
        num_samples: int,
        density: float,
        seed: int,
        idle: Sequence[str] = (),
    ) -> None:
        """Add hook modules to the layers of the chosen groups.

        Args:
            network: Any classifier; its hooks do nothing in base mode.
            chosen: Groups to grow, each by ``ratio`` times its width.
            ratio: m / c, above 0.
            num_samples: N.
            density: Probability that a new channel is active for a sample, in [0, 1].
            seed: Mask seed.
            idle: Names of layers that do not run in eval mode; they read old channels alone.
        """
        nn.Module.__init__(self)
        self.network = network
        self._skeleton = ()
        self._own = {}
        self._switch = GateState()
        extra = [
            group.step * -(-max(1, round(ratio * group.width)) // group.step) for group in chosen
        ]
        dims = {name: dim for group in chosen for name, dim in group.carriers.items()}
        reads = {
            name: (g, extra[g], times)
            for g, group in enumerate(chosen)
            for name, times in (*group.readers.items(), *((c, 1) for c in group.carriers))
        }
        makes = {name: (g, extra[g]) for g, group in enumerate(chosen) for name in group.makers}
        self._names = sorted({*reads, *makes})
        self.twins = nn.ModuleList()
        for name in self._names:
            layer = network.get_submodule(name)
            twin = ExtraChannelHook(
                layer,
                self._switch,
                reads=reads.get(name),
                makes=makes.get(name),
                dim=dims.get(name),
            )
            self.twins.append(twin.train(layer.training))
            layer.register_forward_pre_hook(twin.split_input)
            layer.register_forward_hook(twin.add_output)
        for name in idle:
            network.get_submodule(name).register_forward_pre_hook(IdleLayerHook(self._switch))
        self._setup_masks(extra, num_samples, density, seed)

    def forward(self, image: Tensor, index: Tensor | None = None) -> Tensor:
        """Return logits (B, K): base mode without ``index``, masked mode with it."""
        self._switch.now = None if index is None else self.extra_gates(index)
        try:
            if index is None and self._own:
                own = {name: getattr(self, kept) for name, kept in self._own.items()}
                return functional_call(self.network, own, (image,))
            return self.network(image)
        finally:
            self._switch.now = None

    def _select_old(self, name: str, tensor: Tensor) -> Tensor:
        return tensor  # the network itself has no extra channels

    def build_plain(self) -> nn.Module:
        """Return a new network without hooks."""
        plain = _remove_hooks(copy.deepcopy(self.network))
        plain.load_state_dict(
            {k: v.detach().clone() for k, v in self.base_state().items()}, strict=False
        )
        return plain.train(self.training)


def _remove_hooks(network: nn.Module) -> nn.Module:
    """Remove the hooks of ``ExtraChannelHook`` from a network."""
    for layer in network.modules():
        for hooks in (layer._forward_hooks, layer._forward_pre_hooks):
            for key in [
                k
                for k, h in hooks.items()
                if isinstance(getattr(h, "__self__", h), ExtraChannelHook | IdleLayerHook)
            ]:
                del hooks[key]
    return network


def select_groups(found: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Return the groups to grow: those with most layers first, while they add a new layer.

    Residual streams then grow and the inside of blocks does not, as in REM's own networks: growing
    both ends of every layer multiplies the cost by four, one end by two.
    """
    seen: set[str] = set()
    out = []
    for group in sorted(found, key=lambda g: -len(g.list_dense_layers())):
        if not group.blocked and group.list_dense_layers() - seen:
            seen |= group.list_dense_layers()
            out.append(group)
    return out


def _build_trial(network: nn.Module, chosen: Sequence[ChannelGroup], image: Tensor) -> Grown:
    """Return a grown copy of a network, with a mask per image."""
    own = copy.deepcopy(network)
    idle = list_idle_layers(own, image)
    return Grown(own, chosen, ratio=0.5, num_samples=len(image), density=1.0, seed=0, idle=idle).to(
        image.device
    )


def _check_training(network: nn.Module, chosen: Sequence[ChannelGroup], image: Tensor) -> None:
    """Check that the grown network can be trained.

    Raises:
        ValueError: If it cannot, for example because its code recomputes parts (checkpointing).
    """
    trial = _build_trial(network, chosen, image).train()
    name = type(network).__name__
    try:
        with torch.enable_grad():
            trial(image, torch.arange(len(image), device=image.device)).float().sum().backward()
    except CheckpointError as error:
        raise ValueError(
            f"{name} cannot be expanded: its code uses gradient checkpointing; switch that off, or use "
            f"another form: {REMAINING}"
        ) from error
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
        raise ValueError(
            f"{name} cannot be expanded: it does not run in training with more channels "
            f"({str(error)[:120]}); {REMAINING}"
        ) from error


def _runs_grown(network: nn.Module, chosen: Sequence[ChannelGroup], image: Tensor) -> bool:
    """Return whether the network runs with these groups grown and ignores inactive channels."""
    trial = _build_trial(network, chosen, image)
    off = torch.full((len(image),), -1, device=image.device)
    with eval_mode(trial):
        try:
            masked, base = trial(image, off), trial(image)
            trial(image, torch.arange(len(image), device=image.device))
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError):
            return False
    return bool(torch.allclose(masked, base, rtol=1e-4, atol=1e-4 * float(base.abs().max() + 1)))


def find_growable_groups(network: nn.Module, image: Tensor) -> list[ChannelGroup]:
    """Return the groups of channels that can grow.

    Args:
        network: Any classifier.
        image: Example input, (B, C, H, W), B at least 2, on the same device.

    Raises:
        ValueError: If there is none, naming layers and why.
    """
    with torch.random.fork_rng(devices=[]):  # trial weights do not change the global state
        for parted in (False, True):
            found, chosen = _search_groups(network, image, parted)
            if chosen:
                _check_training(network, chosen, image)
                break
    if not chosen:
        raise ValueError(
            f"{type(network).__name__} cannot be expanded: {_explain_refusal(found)}; {REMAINING}"
        )
    return chosen


def _search_groups(
    network: nn.Module, image: Tensor, parted: bool
) -> tuple[list[ChannelGroup], list[ChannelGroup]]:
    """Return the groups of channels, and those of them that can grow; see ``find_groups``."""
    found = find_groups(network, image, parted=parted)
    chosen = select_groups(found)
    if chosen and not _runs_grown(network, chosen, image):
        for group in found:
            if not group.blocked and not _runs_grown(network, [group], image):
                group.blocked = "the network does not run with more of them"
        chosen = select_groups(found)
        if not _runs_grown(network, chosen, image):
            chosen = []
    return found, chosen


def _explain_refusal(found: Sequence[ChannelGroup]) -> str:
    blocked = [g for g in found if g.blocked and g.makers]
    if not blocked:
        return "it has no convolution or linear map that feeds another"
    told = [f"the channels of layer '{g.makers[0]}' cannot grow ({g.blocked})" for g in blocked[:3]]
    return ", ".join(told) + (f" and {len(blocked) - 3} more" if len(blocked) > 3 else "")


def check_growable(network: nn.Module, image: Tensor) -> None:
    """Check that ``grow_network`` can expand the network.

    Raises:
        ValueError: If it cannot; the message lists layers and reasons.
    """
    if not isinstance(network, Expanded) and not is_native(network):
        find_growable_groups(network, image)


def grow_network(
    network: nn.Module,
    image: Tensor,
    *,
    ratio: float,
    num_samples: int,
    density: float,
    seed: int,
) -> Expanded:
    """Return the network with new extra channels.

    Args:
        network: Any classifier; those of this package are expanded by their constructors.
        image: Example input, (B, C, H, W), B at least 2.
        ratio: New channels per old channel, above 0.
        num_samples: N, above every index of a sample.
        density: Probability that a new channel is active for a sample, in [0, 1].
        seed: Seed of the new weights and the masks.

    Raises:
        ValueError: If no layer can be expanded.
    """
    options = {"ratio": ratio, "num_samples": num_samples, "density": density, "seed": seed}
    if is_native(network):
        return expand_network(network, **options)  # type: ignore[arg-type]
    device = next(network.parameters()).device
    chosen = find_growable_groups(network, image.to(device))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        idle = list_idle_layers(network, image.to(device))
        new = Grown(network, chosen, idle=idle, **options).to(device)  # type: ignore[arg-type]
    told = ", ".join(f"{g.makers[0]} ({g.width})" for g in chosen)
    log.info("expanded channel groups (%d): %s", len(chosen), told)
    return new.train(network.training)
