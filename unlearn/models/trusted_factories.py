"""Build the network that a card describes, without running code that the card names.

A card is data that may come from elsewhere. Its ``model`` node is therefore not instantiated as
configs are: its target must be a network of this package, torchvision or timm, or lie in a package
that the caller trusts, and its options must be plain values.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

EXTERNAL = ("torchvision_network", "timm_network")
"""Factories of this package that look up a name in the list of another library."""

IMPORTED = "imported_network"
"""Factory that calls a user's function, ``path=module:function``."""


def build_card_network(node: Any, trust: Sequence[str] = (), **shape: int) -> nn.Module:
    """Return the untrained network of a card's ``model`` node.

    Args:
        node: ``_target_``, ``_partial_`` and plain options.
        trust: Packages of the caller whose functions may be called.
        shape: ``in_channels``, ``image_size`` and ``num_classes``.

    Raises:
        ValueError: If the node names anything else, or the network cannot be built.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ValueError(f"card: model must name a network in _target_, got {str(node)[:80]}")
    left_out = ("_target_", "_partial_", "pretrained")  # its weights are in the model's file
    options = {str(k): v for k, v in node.items() if k not in left_out}
    for key, value in options.items():
        if key.startswith("_") or not _is_plain(value):
            raise ValueError(f"card: model.{key} must be a plain value, got {str(value)[:80]}")
    factory = _find_factory(node["_target_"], options, trust)
    return _call_factory(factory, {**options, **shape})


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def _find_factory(target: str, options: Mapping[str, Any], trust: Sequence[str]) -> Any:
    module, _, name = target.rpartition(".")
    if target == f"unlearn.models.external.{IMPORTED}":
        path = str(options.get("path"))
        if not _is_inside(path.partition(":")[0], trust):
            raise _refuse(path, trust)
    elif target.startswith("unlearn.models."):
        found = _import_name(module, name)
        inside = getattr(found, "__module__", "").startswith("unlearn.models.")
        network = isinstance(found, type) and issubclass(found, nn.Module)
        if not inside or not (network or name in EXTERNAL):
            raise _refuse(target, trust)
        return found
    elif not _is_inside(module, trust):
        raise _refuse(target, trust)
    return _import_name(module, name)


def _is_inside(module: str, trust: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in trust)


def _refuse(target: str, trust: Sequence[str]) -> ValueError:
    package = target.partition(":")[0].partition(".")[0]
    return ValueError(
        f"card: model names {target[:80]}, which is no network of this package, torchvision or timm"
        f"{f' or of {list(trust)}' if trust else ''}; if you trust it, pass trust=['{package[:40]}']"
    )


def _import_name(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"card: model names {module}.{name}, which does not exist") from error


def _call_factory(factory: Any, options: Mapping[str, Any]) -> nn.Module:
    try:
        network = factory(**options)
    except (TypeError, ArithmeticError, AssertionError, RuntimeError) as error:
        raise ValueError(
            f"card: the network cannot be built: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"card: model must build a torch.nn.Module, got {type(network).__name__}")
    return network
