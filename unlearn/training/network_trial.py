"""One step of training on a copy of a user's network, before any work.

Shapes: B batch, C H W image.
"""

import copy
import logging

import torch
from torch import Tensor, nn

from unlearn.training.engine import Engine

log = logging.getLogger(__name__)

_needs_contiguous: dict[tuple[str, tuple[int, ...], str], bool] = {}
"""By network, shape of the images and device; tried once per process."""


def fit_layout(network: nn.Module, image: Tensor, engine: Engine, key: str) -> None:
    """Check that a network can be trained, and mark one that needs contiguous memory.

    Args:
        network: A network that returns logits.
        image: Example input, (B, C, H, W), B at least 2.
        engine: Device and memory layout.
        key: Identifies networks of the same code; each is tried once.

    Raises:
        ValueError: If it cannot be trained.
    """
    case = (key, tuple(image.shape[1:]), str(engine.device))
    if case not in _needs_contiguous:
        for note in try_training(network, image, engine):
            log.info("%s", note)
        _needs_contiguous[case] = hasattr(network, "keep_contiguous")
    if _needs_contiguous[case]:
        network.keep_contiguous = True  # type: ignore[assignment]


def try_training(network: nn.Module, image: Tensor, engine: Engine) -> list[str]:
    """Check that a network can be trained here; return what to say about it.

    A network whose code needs contiguous memory (``view``) is marked, so that it is not laid out in
    channels_last. Weights, statistics and random state do not change.

    Args:
        network: A network that returns logits.
        image: Example input, (B, C, H, W), B at least 2.
        engine: Device and memory layout.

    Raises:
        ValueError: If it cannot be trained; the message holds torch's.
    """
    error = _find_error(network, image, engine)
    if error is None:
        return []
    network.keep_contiguous = True  # type: ignore[assignment]
    if _find_error(network, image, engine) is None:
        return ["the network needs contiguous memory (view): it is not laid out in channels_last"]
    del network.keep_contiguous
    raise ValueError(
        f"{type(network).__name__} cannot be trained: {' '.join(str(error).split())[:200]}"
    )


def _find_error(network: nn.Module, image: Tensor, engine: Engine) -> Exception | None:
    """Return the error of a step on a copy; None if there is none."""
    own = engine.place_model(copy.deepcopy(network)).train()
    devices = [engine.device] if engine.device.type == "cuda" else []
    with torch.enable_grad(), torch.random.fork_rng(devices=devices):
        try:
            own(image.to(engine.device)).float().square().mean().backward()
        except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
            return error
    return None
