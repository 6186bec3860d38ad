"""Networks from timm, from torchvision, or from a user's function.

Each factory is called with the shape of the data, as the classes of this package, and returns a
classifier tested on one batch. Shapes: B batch, C H W image, K classes.
"""

import difflib
import functools
import importlib
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from unlearn.core.timm_input import read_network_input
from unlearn.models.adapted import adapt_network, add_hooks, list_hooks, use_logits
from unlearn.models.surgery import eval_mode

log = logging.getLogger(__name__)

Build = Callable[..., nn.Module]


def _try_network(
    what: str, build: Build, shape: dict[str, int], grown: tuple[float, float]
) -> nn.Module:
    """Return a network, tested by a forward pass, with ``build_again`` to rebuild it.

    Raises:
        ValueError: If it cannot be built, or does not return one logit per class.
    """
    if grown != (1.0, 0.0):
        raise ValueError(f"{what} does not support extra channels: pretraining must be standard")
    try:
        network = build(**shape)
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f"{what} cannot be built: {_error_line(error)}") from error
    if not isinstance(network, nn.Module) or not any(True for _ in network.parameters()):
        raise ValueError(f"{what} must be a torch.nn.Module with weights, got {type(network)}")
    network, did = adapt_network(network)
    c, size, k = shape["in_channels"], shape["image_size"], shape["num_classes"]
    try:
        notes = did.notes + use_logits(network, torch.zeros(2, c, size, size))
        with eval_mode(network):
            out = network(torch.zeros(2, c, size, size))
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"{what} cannot read images {(c, size, size)}: {_error_line(error)}"
        ) from error
    if not isinstance(out, Tensor) or out.shape != (2, k):
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"{what} must return (2, {k}) logits for two images, got {got}")
    for note in notes:
        _log_once(f"{what}: {note}")
    network.build_again = functools.partial(_build_alike, build, list_hooks(network), **shape)  # type: ignore[assignment]
    return network


def _build_alike(build: Build, hooks: Sequence[str], **shape: int) -> nn.Module:
    """Return the network again, adapted in the same way."""
    network, _ = adapt_network(build(**shape))
    add_hooks(network, hooks)
    return network


@functools.lru_cache(maxsize=64)
def _log_once(line: str) -> None:
    log.info("%s", line)


def _error_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _check_known(key: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else f" ({len(names)} are available)"
        raise ValueError(f"{key} must be the name of an available classifier, got {name}{hint}")


def timm_network(
    *,
    name: str,
    in_channels: int,
    image_size: int,
    num_classes: int,
    pretrained: bool = False,
    capacity: float = 1.0,
    extra: float = 0.0,
) -> nn.Module:
    """Return a timm network; ``network_input`` is the input that its weights were trained on.

    Args:
        name: Name in timm, such as resnet18, also as on the Hub: timm/resnet18.a1_in1k.
        pretrained: Load timm's weights, downloaded on first use, with a new head.
        in_channels: C.
        image_size: H and W; networks with a fixed input size are built for it.
        num_classes: K.
        capacity: Must be 1; these networks do not support extra channels.
        extra: 0.

    Raises:
        ValueError: If timm is not installed or has no such network, the network does not fit, or
            its weights cannot be downloaded.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError("model=timm needs timm: pip install 'unlearn-bench[timm]'") from error
    name = re.sub(r"^(hf[-_]hub:|hf://)?(timm/)?", "", name)  # its names on the Hub
    _check_known("model.name (timm)", name.partition(".")[0], timm.list_models())

    def build_timm(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
        about = timm.get_pretrained_cfg(name)
        sized: dict[str, Any] = (
            {"img_size": image_size} if about is not None and about.fixed_input_size else {}
        )
        sized |= {"in_chans": in_channels, "num_classes": num_classes}
        plain = timm.create_model(name, pretrained=False, **sized)
        return _load_pretrained(name, sized) if pretrained else plain

    shape = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
    network = _try_network(f"timm's {name}", build_timm, shape, (capacity, extra))
    network.network_input = read_network_input(name)  # type: ignore[assignment]
    return network


def _load_pretrained(name: str, options: dict[str, Any]) -> nn.Module:
    """Return timm's network with its weights.

    Raises:
        ValueError: If they cannot be downloaded.
    """
    import timm

    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # of the hub, the network or timm: many types
        raise ValueError(
            f"no pretrained weights ({_error_line(error)[:150]}); without network set "
            "model.pretrained=false, and checkpoint=FILE for weights of your own"
        ) from error


def torchvision_network(
    *,
    name: str,
    in_channels: int,
    image_size: int,
    num_classes: int,
    capacity: float = 1.0,
    extra: float = 0.0,
) -> nn.Module:
    """Return a torchvision classifier with random weights; nothing is downloaded.

    Args:
        name: Name in torchvision, such as resnet18.
        in_channels: C; must be 3.
        image_size: H and W; transformers are built for it.
        num_classes: K.
        capacity: Must be 1; these networks do not support extra channels.
        extra: 0.

    Raises:
        ValueError: If torchvision has no such network, or the network does not fit.
    """
    from torchvision import models

    _check_known("model.name (torchvision)", name, models.list_models(module=models))
    if in_channels != 3:
        raise ValueError(
            f"torchvision's {name} reads 3 channels, the images have {in_channels}: "
            "set dataset.mean and dataset.std to three values each to load them as RGB"
        )

    def build_torchvision(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
        builder = models.get_model_builder(name)
        options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
        if builder.__module__.endswith("vision_transformer"):
            options["image_size"] = image_size
        if builder.__module__.endswith(("googlenet", "inception")):
            options |= {"aux_logits": False, "init_weights": False}
        return builder(**options)

    shape = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
    return _try_network(f"torchvision's {name}", build_torchvision, shape, (capacity, extra))


def imported_network(
    *,
    path: str,
    in_channels: int,
    image_size: int,
    num_classes: int,
    capacity: float = 1.0,
    extra: float = 0.0,
) -> nn.Module:
    """Return the network built by a user's function or class.

    Args:
        path: Function, such as ``mypackage.models:build``; called with those of ``in_channels``,
            ``image_size`` and ``num_classes`` that it accepts.
        in_channels: C.
        image_size: H and W.
        num_classes: K.
        capacity: Must be 1; these networks do not support extra channels.
        extra: Must be 0.

    Raises:
        ValueError: If the function does not exist, or its network does not fit.
    """
    make = _import_object(path)
    taken = inspect.signature(make).parameters
    # Functions with **kwargs usually forward only num_classes to a function without.
    more = any(p.kind is p.VAR_KEYWORD for p in taken.values())

    def build_imported(**shape: int) -> nn.Module:
        return make(
            **{k: v for k, v in shape.items() if k in taken or (more and k == "num_classes")}
        )

    shape = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
    return _try_network(path, build_imported, shape, (capacity, extra))


def _import_object(path: str) -> Build:
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"model.path must be module:function, got {path}")
    if os.getcwd() not in sys.path:  # as python -m does, unlike console scripts
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"model.path: cannot import {path}: {_error_line(error)}; is its folder on PYTHONPATH?"
        ) from error
    if not callable(found):
        raise ValueError(f"model.path: {path} is not callable")
    return cast(Build, found)
