"""Extra channels of a network, activated by fixed masks per sample (arXiv 2505.17730, 2307.09542).

Used for both forms of REM's expansion, half-capacity pre-training and example-tied dropout: a
network of the same class with more channels, whose old channels are the leading slice of every
tensor. Extra channels are dropped by slicing, which is exact.
Shapes: B batch, N samples, m extra channels of a group, K classes.
"""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def draw_masks(seed: int, group: int, rows: int, channels: int, density: float) -> Tensor:
    """Return fixed random masks, float {0, 1} (rows, channels); row 0 is never all zero.

    Args:
        seed: Mask seed.
        group: Gate group; groups are drawn independently.
        rows: Number of masks.
        channels: m.
        density: Probability that a channel is active, in [0, 1]; 0 gives all zeros.
    """
    key = hashlib.sha256(f"{seed}/{group}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
    masks = (torch.rand(rows, channels, generator=generator) < density).float()
    if density > 0 and not masks[0].any():
        masks[0, int(torch.randint(channels, (1,), generator=generator))] = 1.0
    return masks


class Expanded(nn.Module):
    """A network with extra channels: base mode without them, masked mode with each sample's mask.

    ``forward(image)`` is base mode: exactly the network that ``build_plain`` returns.
    ``forward(image, index)`` is masked mode; with index -1 no extra channel is active.
    """

    masks: Tensor
    mask_row: Tensor

    def __init__(self, network: nn.Module, *, num_samples: int, density: float, seed: int) -> None:
        """Wrap a network that was built with ``extra`` > 0.

        Args:
            network: Network with ``arguments`` (of its constructor) and ``group_channels``.
            num_samples: N, above every index of a sample.
            density: Probability that an extra channel is active for a sample, in [0, 1].
            seed: Mask seed.

        Raises:
            ValueError: If the network cannot be expanded or has no extra channels.
        """
        super().__init__()
        arguments = network.arguments
        if not isinstance(arguments, dict) or not arguments.get("extra"):
            raise ValueError(f"{type(network).__name__} has no extra channels to mask")
        self.network = network
        with torch.device("meta"):
            skeleton = type(network)(**{**arguments, "extra": 0.0})
        self._skeleton = (skeleton,)  # in a tuple, so that it is not registered as a submodule
        self._old_shape = {k: tuple(v.shape) for k, v in skeleton.state_dict().items()}
        self._own: dict[str, str] = {}  # buffers only of base mode, by the plain network's names
        pairs = zip(skeleton.group_channels, network.group_channels, strict=True)  # type: ignore[arg-type]
        self._setup_masks([total - old for old, total in pairs], num_samples, density, seed)

    def _setup_masks(self, extra: list[int], num_samples: int, density: float, seed: int) -> None:
        """Draw the masks of ``extra`` channels per group."""
        self._split = extra
        self._num_samples = num_samples
        self.density = density
        self.seed = seed
        self.register_buffer("mask_row", torch.arange(num_samples + 1) + 1, persistent=False)
        self.mask_row[-1] = num_samples + 1
        self._draw_masks()

    def _draw_masks(self) -> None:
        rows = self._num_samples + 1
        masks = torch.cat(
            [draw_masks(self.seed, g, rows, m, self.density) for g, m in enumerate(self._split)],
            dim=1,
        )
        masks = torch.cat([masks, torch.zeros(1, masks.shape[1])])  # last row: all inactive
        device = next(self.network.parameters()).device
        self.register_buffer("masks", masks.to(device), persistent=False)

    def redraw_masks(self, *, density: float, seed: int) -> None:
        """Draw new masks, for example to activate channels that were inactive in training."""
        self.density, self.seed = density, seed
        self._draw_masks()

    def check_indices(self, index: Tensor) -> None:
        """Check that every sample has a mask: index N would switch the extra channels off.

        Args:
            index: Indices of samples, int64 (n,).

        Raises:
            ValueError: If one has none.
        """
        highest = int(index.max())
        if highest >= self._num_samples:
            raise ValueError(
                f"the network has masks for the samples 0..{self._num_samples - 1}, got index "
                f"{highest}: it was trained on another training set"
            )

    def share_mask(self, index: Tensor) -> None:
        """Assign one shared mask to the samples ``index``, int64 (n,)."""
        self.mask_row[index] = 0

    def extra_gates(self, index: Tensor) -> list[Tensor]:
        """Return the gates of the extra channels, (B, m) per group, for samples ``index`` (B,)."""
        return list(self.masks[self.mask_row[index]].split(self._split, dim=1))

    def select_gates(self, index: Tensor) -> list[Tensor]:
        """Return one gate (B, c) per group for the samples ``index`` (B,); -1: extra channels off."""
        parts = self.extra_gates(index)
        old = self._skeleton[0].group_channels
        return [
            torch.cat([p.new_ones(len(p), o), p], dim=1)
            for o, p in zip(old, parts, strict=True)  # type: ignore[arg-type]
        ]

    def _select_old(self, name: str, tensor: Tensor) -> Tensor:
        return tensor[tuple(slice(s) for s in self._old_shape[name])]

    def separate_statistics(self) -> None:
        """Use separate running statistics in base mode, not updated by masked passes."""
        for name, buffer in self.network.named_buffers():
            self._own[name] = "base_" + name.replace(".", "_")
            self.register_buffer(self._own[name], self._select_old(name, buffer).clone())

    def base_state(self) -> dict[str, Tensor]:
        """Return views of the old part of parameters and buffers, by the plain network's names."""
        tensors = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        views = {name: self._select_old(name, tensor) for name, tensor in tensors.items()}
        return views | {name: getattr(self, kept) for name, kept in self._own.items()}

    def forward(self, image: Tensor, index: Tensor | None = None) -> Tensor:
        """Return logits (B, K): base mode without ``index``, masked mode with it."""
        if index is None:
            return self._forward_base(image)
        return self.network(image, self.select_gates(index))

    def _forward_base(self, image: Tensor) -> Tensor:
        """Return logits (B, K) of base mode; updates running statistics of the old channels."""
        state, skeleton = self.base_state(), self._skeleton[0]
        if not skeleton.training:
            return functional_call(skeleton, state, (image,))
        # Update copies, since batch norm cannot write to a slice under vmap.
        running = {name: state[name].clone() for name, _ in skeleton.named_buffers()}
        logits = functional_call(skeleton, state | running, (image,))
        for name, value in running.items():
            state[name].copy_(value)
        return logits

    def train(self, mode: bool = True) -> "Expanded":
        """Set train or eval mode for both base and masked mode."""
        for skeleton in self._skeleton:
            skeleton.train(mode)
        return super().train(mode)

    def build_plain(self) -> nn.Module:
        """Return a new network without the extra channels."""
        network = self.network
        plain = type(network)(**{**network.arguments, "extra": 0.0})  # type: ignore[arg-type]
        plain.load_state_dict({k: v.detach().clone() for k, v in self.base_state().items()})
        device = next(network.parameters()).device
        return plain.to(device).train(self.training)


def expand_network(
    network: nn.Module, *, ratio: float, num_samples: int, density: float, seed: int
) -> Expanded:
    """Return the network with freshly initialised extra channels (REM's physical form).

    Args:
        network: Network with ``arguments`` and ``group_channels``, without extra channels.
        ratio: Extra channels per old channel at every gate point, > 0.
        num_samples: N, above every index of a sample.
        density: Probability that an extra channel is active for a sample, in [0, 1].
        seed: Seed of the new weights and the masks.

    Raises:
        ValueError: If the network's class does not support extra channels.
    """
    arguments: Any = getattr(network, "arguments", None)
    if not isinstance(arguments, dict) or "extra" not in arguments:
        raise ValueError(
            f"{type(network).__name__} cannot be expanded: its class does not support extra "
            "channels; use a method that does not expand the network"
        )
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grown = type(network)(**{**arguments, "extra": ratio * arguments["capacity"]})
    new = Expanded(grown, num_samples=num_samples, density=density, seed=seed).to(device)
    with torch.no_grad():
        state = network.state_dict()
        for name, part in new.base_state().items():
            part.copy_(state[name])
    return new.train(network.training)


def remove_extra_channels(model: nn.Module) -> nn.Module:
    """Return the plain network without extra channels; any other model unchanged."""
    return model.build_plain() if isinstance(model, Expanded) else model


def is_native(network: nn.Module) -> bool:
    """Return whether a network's class supports extra channels."""
    arguments = getattr(network, "arguments", None)
    return isinstance(arguments, dict) and "extra" in arguments
