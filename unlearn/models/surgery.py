"""Operations on whole networks: new weights, batch-norm modes and statistics."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unlearn.core.types import ImageSet
from unlearn.models.initial_weights import load_initial_weights


def reinitialize_network(model: nn.Module, seed: int) -> nn.Module:
    """Return a network of the same architecture with new random weights, or its initial ones.

    Initial weights are those of ``start_from``; frozen parameters keep their values.

    Args:
        model: A network with ``arguments`` of its constructor, with a function ``build_again``, or
            whose layers have ``reset_parameters``.
        seed: Seed of the weights; the global random state does not change.

    Raises:
        ValueError: If a layer has parameters but no ``reset_parameters``.
    """
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = _build_network(model).to(device)
    load_initial_weights(new, model)
    if hasattr(model, "keep_contiguous"):
        new.keep_contiguous = model.keep_contiguous
    own = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    if len(own) == len(list(model.parameters())):
        return new
    with torch.no_grad():
        for name, value in new.named_parameters():
            if name in own:  # such as a fixed backbone
                value.copy_(own[name]).requires_grad_(False)
    return new


def _build_network(model: nn.Module) -> nn.Module:
    """Return a network of the same architecture with new weights, on any device.

    Raises:
        ValueError: If a layer has parameters but no ``reset_parameters``.
    """
    arguments = getattr(model, "arguments", None)
    if isinstance(arguments, dict):
        return type(model)(**arguments)
    build_again = getattr(model, "build_again", None)
    if callable(build_again):
        again = build_again()
        assert isinstance(again, nn.Module)
        return again
    new = copy.deepcopy(model).cpu()
    started = hasattr(model, "initial_weights")  # which replace what cannot be drawn
    for name, module in new.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if parametrize.is_parametrized(module):
            _reset_parametrized(module)
        elif isinstance(module, parametrize.ParametrizationList):
            continue  # by its layer
        elif callable(reset):
            reset()
        elif any(True for _ in module.parameters(recurse=False)) and not started:
            raise ValueError(
                f"cannot draw new weights: layer '{name or type(new).__name__}' has "
                "parameters but no reset_parameters()"
            )
    return new


def _reset_parametrized(layer: nn.Module) -> None:
    """Draw new weights of a layer with weight or spectral norm.

    Raises:
        ValueError: If the layer has no ``reset_parameters``.
    """
    kind = parametrize.type_before_parametrizations(layer)
    plain: Any = object.__new__(kind)
    plain.__dict__.update(vars(layer))
    plain._parameters, plain._modules = dict(layer._parameters), {}
    names = list(layer.parametrizations)  # type: ignore[arg-type]
    for name in names:
        plain.register_parameter(name, nn.Parameter(getattr(layer, name).detach().clone()))
    if not callable(getattr(plain, "reset_parameters", None)):
        raise ValueError(
            f"cannot draw new weights: {type(plain).__name__} has no reset_parameters()"
        )
    plain.reset_parameters()
    with torch.no_grad():
        for name in names:
            setattr(layer, name, getattr(plain, name).detach())


def draw_unrelated_network(model: nn.Module, seed: int) -> nn.Module:
    """Return a network with new random weights that differ from the initial weights of ``model``.

    A run often uses one seed, with which ``reinitialize_network`` would return the initial weights
    of the trained layers, to which the other layers are still adapted.
    """
    return reinitialize_network(model, seed + 1_234_567_891)


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch-norm layers that keep running statistics."""
    kinds = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kinds) and m.track_running_stats]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode without gradients; restore each layer's mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        model.train(modes[0][1])
        for module, mode in modes:
            module.training = mode


def iterate_shuffled_images(data: ImageSet, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield all images of a set in a random order, normalised, without augmentation, (B, C, H, W).

    Args:
        data: The set, in any order; folders of images are sorted by class.
        batch_size: B; a single last image joins the previous batch.
        seed: Seed of the order.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data), generator=generator).to(data.label.device)
    start, size = 0, len(order)
    parts = list[Tensor]()
    while start < size:
        stop = size if size - start <= batch_size + 1 else start + batch_size
        parts.append(order[start:stop])
        start = stop
    for batch in data.select_batches(parts):
        yield batch.image


def recalibrate_batch_norm(model: nn.Module, images: Iterable[Tensor]) -> None:
    """Recompute running batch-norm statistics as plain averages over ``images``, in place.

    Args:
        model: Called as ``model(image)``; for an expanded network that is base mode, so only the
            statistics of the old channels change.
        images: Normalised batches (B, C, H, W), each a random sample, see
            ``iterate_shuffled_images``: variances are averaged over batches, so those of batches
            of one class lack the variance between classes.
    """
    layers = batch_norms(model)
    device = next(model.parameters()).device
    skeleton = getattr(model, "_skeleton", ())
    acting = layers + [layer for s in skeleton for layer in batch_norms(s)]
    modes = [(layer, layer.momentum, layer.training) for layer in acting]
    counts = [layer.num_batches_tracked for layer in layers]
    before = [c.clone() if c is not None else None for c in counts]
    for layer in layers:
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.zero_()
    try:
        for layer in acting:
            layer.momentum = None  # cumulative average: the first batch overwrites the old values
            layer.training = True
        with torch.no_grad():
            for image in images:
                model(image.to(device))
    finally:
        for layer, momentum, mode in modes:
            layer.momentum, layer.training = momentum, mode
        for count, old in zip(counts, before, strict=True):
            if count is not None and old is not None:
                count.copy_(old)
