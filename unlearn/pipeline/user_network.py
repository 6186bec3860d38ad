"""The model of a call in Python: a network, or weights for one."""

import copy
import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unlearn.models.initial_weights import start_from
from unlearn.pipeline.context import RunContext
from unlearn.pipeline.healed_models import load_from_hub
from unlearn.pipeline.original_agreement import find_misfit
from unlearn.storage.hub import WEIGHT_FILES, download_file, is_hub_name
from unlearn.storage.initial_weights import read_initial_weights
from unlearn.storage.user_checkpoint import match_checkpoint, match_content

log = logging.getLogger(__name__)

Source = nn.Module | str | Path | Mapping[str, Tensor]


def build_user_network(model: Any, network: Any) -> nn.Module:
    """Return the network of a call with its weights.

    Args:
        model: A network; or weights for ``network``: a checkpoint file (state dict, a dictionary
            that holds one, safetensors), or a state dict.
        network: The network of weights, which is not modified; or a function without arguments
            that returns one, itself or as "module:function".

    Raises:
        ValueError: If they do not fit together; the message lists differing names.
    """
    if isinstance(model, nn.Module):
        if network is not None:
            raise ValueError("network is used with weights alone: leave it out, or pass a path")
        if next(model.parameters(), None) is None:
            raise ValueError(f"model must have parameters, got {type(model).__name__} without any")
        return model
    if not isinstance(model, str | Path | Mapping):
        raise ValueError(
            "model must be a torch.nn.Module, a checkpoint file or a state dict, got "
            f"{type(model).__name__}"
        )
    if network is None and is_hub_name(model):
        return load_from_hub(str(model), ())
    if network is None:
        raise ValueError(
            "model holds weights alone: pass the network they belong to, "
            "network=torchvision.models.resnet18(num_classes=10)"
        )
    built = _build_network(network)
    if isinstance(model, Mapping):
        found = match_content(model, None, Path("of the call"), built, type(built).__name__)
    else:
        path = Path(model).expanduser()
        if is_hub_name(model):
            path = download_file(str(model), WEIGHT_FILES, "model")
        if not path.is_file():
            raise ValueError(f"model: no file {path}")
        found = match_checkpoint(path, built, type(built).__name__)
    found.load_into(built)
    return built.eval()


def _build_network(network: Any) -> nn.Module:
    if isinstance(network, nn.Module):
        return copy.deepcopy(network)
    make: Any = _import_function(network) if isinstance(network, str) else network
    if not isinstance(make, Callable):
        raise ValueError(
            f"network must be a torch.nn.Module or a function that returns one, got {network}"
        )
    built = make()
    if not isinstance(built, nn.Module):
        raise ValueError(f"network must return a torch.nn.Module, got {type(built).__name__}")
    return built


def _import_function(path: str) -> Any:
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"network must be a torch.nn.Module or module:function, cannot import {path}: {error}"
        ) from error


def set_initial_weights(network: nn.Module, init: Any) -> None:
    """Let networks that are built anew like ``network`` start from given weights.

    Raises:
        ValueError: If they do not fit.
    """
    if init is None:
        return
    source = init.state_dict() if isinstance(init, nn.Module) else init
    source = dict(source) if isinstance(source, Mapping) else Path(source).expanduser()
    if isinstance(source, Path) and not source.is_file():
        raise ValueError(f"init: no file {source}")
    trial = copy.deepcopy(network)
    start_from(trial, read_initial_weights(source, network), "init")
    network.initial_weights = trial.initial_weights


def check_given_model(context: RunContext, network: nn.Module) -> None:
    """Log how a model agrees with its data; refuse it if another input fits much better.

    Raises:
        ValueError: If another input or order of classes fits much better.
    """
    assert context.original_predictions is not None
    found = find_misfit(context, network, context.original_predictions)
    if found is None:
        return
    reason = found.reason.replace("dataset.", "").replace("class_order", "class_names")
    if found.certain:
        raise ValueError(f"model {reason}")
    log.warning("model %s", reason)
